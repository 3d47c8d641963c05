-- an immutable wrapper of unaccent() in a unique and a trigram index
-- people who search names without their accents, with the wrapper that every answer on the subject gives
-- expect: whole
create extension unaccent;
create extension pg_trgm;
create function f_unaccent(t text) returns text language sql immutable strict parallel safe as $$ select unaccent('unaccent', t) $$;
create table person (id int primary key, name text not null);
insert into person values (1, 'Müller'), (2, 'Ångström'), (3, 'Peña');
create unique index person_name on person (lower(f_unaccent(name)));
create index person_like on person using gin (f_unaccent(name) gin_trgm_ops);
