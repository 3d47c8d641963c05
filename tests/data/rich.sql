CREATE SCHEMA app; CREATE SCHEMA "Odd Schema";
CREATE TYPE app.mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE app.pair AS (a int, b text);
CREATE TYPE app.span AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE DOMAIN app.email AS text COLLATE "C" NOT NULL CHECK (VALUE ~ '@');
CREATE SEQUENCE app.numbers START 7 INCREMENT 3 CACHE 2;
CREATE FUNCTION app.shout(t text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN upper(t) || '!';
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.changed := '2020-01-01'; RETURN NEW; END $$;
CREATE FUNCTION app.note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;
CREATE PROCEDURE app.nothing() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;
CREATE AGGREGATE app.total(numeric) (SFUNC = numeric_add, STYPE = numeric, INITCOND = '0');
CREATE OPERATOR app.|+| (LEFTARG = text, RIGHTARG = text, FUNCTION = textcat);
CREATE COLLATION app.bytewise FROM "C";
CREATE TABLE people (
  id int GENERATED ALWAYS AS IDENTITY, name text NOT NULL, mail app.email DEFAULT 'x@y', mood app.mood DEFAULT 'ok', born date,
  loud text GENERATED ALWAYS AS (app.shout(name)) STORED, tags text[] DEFAULT '{}', extra jsonb, pairs app.pair[], changed timestamptz,
  within app.span, number bigint DEFAULT nextval('app.numbers'), search tsvector, CONSTRAINT people_pk PRIMARY KEY (id),
  CONSTRAINT grown CHECK (born < '2100-01-01'), CONSTRAINT mails UNIQUE NULLS NOT DISTINCT (mail, number)
);
CREATE TRIGGER touched BEFORE UPDATE ON people FOR EACH ROW WHEN (OLD.name IS DISTINCT FROM NEW.name) EXECUTE FUNCTION app.touch();
INSERT INTO people (name, mood, born, extra, pairs, within, search)
  SELECT 'person ' || i, (ARRAY['sad','ok','happy'])[1 + i % 3]::app.mood, date '1980-01-01' + i, jsonb_build_object('i', i, 'deep', ARRAY[i]),
  ARRAY[ROW(i, E'tab\tline\n')::app.pair], app.span(i, i + 0.5), to_tsvector('english', 'the running person ' || i) FROM generate_series(1, 500) i;
UPDATE people SET name = name || ' changed' WHERE id % 10 = 0;
CREATE INDEX people_search ON people USING gin (search);
CREATE INDEX people_lower ON people (lower(name)) INCLUDE (born) WHERE mood <> 'sad';
CREATE UNIQUE INDEX people_loud ON people (app.shout(name), id DESC NULLS LAST);
CREATE STATISTICS people_stats (dependencies, mcv) ON name, mood FROM people;
ALTER TABLE people ALTER COLUMN name SET STATISTICS 500, ALTER COLUMN extra SET STORAGE EXTERNAL, ALTER COLUMN tags SET COMPRESSION pglz;
ALTER TABLE people CLUSTER ON people_pk; ALTER TABLE people REPLICA IDENTITY FULL;
CREATE TABLE notes (id bigserial PRIMARY KEY, person int REFERENCES people ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, body text, big oid);
INSERT INTO notes (person, body, big) SELECT i, repeat('n', i), lo_from_bytea(0, convert_to('large ' || i, 'UTF8')) FROM generate_series(1, 20) i;
CREATE TABLE events (at date NOT NULL, kind text, n int, PRIMARY KEY (at, kind)) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (kind);
CREATE TABLE events_2024_a PARTITION OF events_2024 FOR VALUES IN ('a', 'b');
CREATE TABLE events_2024_rest PARTITION OF events_2024 DEFAULT;
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events SELECT date '2024-06-01' + i, chr(97 + i % 5), i FROM generate_series(1, 400) i;
CREATE TABLE hashed (mood app.mood, i int) PARTITION BY HASH (mood);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT (ARRAY['sad','ok','happy'])[1 + i % 3]::app.mood, i FROM generate_series(1, 60) i;
CREATE TABLE hashed_ids (i int PRIMARY KEY) PARTITION BY HASH (i);
CREATE TABLE hashed_ids_0 PARTITION OF hashed_ids FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_ids_1 PARTITION OF hashed_ids FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed_ids SELECT generate_series(1, 50);
CREATE TABLE parent (a int NOT NULL); CREATE TABLE child (b int) INHERITS (parent); INSERT INTO child VALUES (1, 2);
CREATE UNLOGGED TABLE fleeting (i int); INSERT INTO fleeting VALUES (1);
CREATE TABLE "Odd Schema"."table ""of"" quotes" ("a column" int PRIMARY KEY, "select" text, CONSTRAINT "not null" CHECK ("select" <> ''));
INSERT INTO "Odd Schema"."table ""of"" quotes" VALUES (1, E'\\backslash\t');
CREATE TABLE booked (room int, during tsrange, EXCLUDE USING gist (during WITH &&)); INSERT INTO booked VALUES (1, '[2024-01-01,2024-01-02)');
CREATE VIEW grown_up WITH (security_barrier) AS SELECT id, name FROM people WHERE born < '1981-01-01' WITH CASCADED CHECK OPTION;
CREATE MATERIALIZED VIEW by_mood AS SELECT mood, count(*) AS n FROM people GROUP BY mood; CREATE UNIQUE INDEX ON by_mood (mood);
CREATE RULE no_delete AS ON DELETE TO booked DO INSTEAD NOTHING;
CREATE TEXT SEARCH CONFIGURATION app.plain (COPY = simple);
CREATE PUBLICATION whole FOR TABLE people (id, name) WHERE (id > 10), TABLE notes; CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA app;
CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION app.note();
COMMENT ON TABLE people IS 'it''s people'; COMMENT ON COLUMN people.name IS 'a name';
