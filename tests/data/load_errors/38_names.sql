-- names with quotes, newlines, unicode, and one that looks like a line of pg_restore
-- people whose tables came from spreadsheets; whoever reads pg_restore's words must not be led astray
-- expect: whole
create function "in ner""x"(t text) returns text language sql immutable as $$ select upper(t) $$;
create function "out;er"(t text) returns text language sql immutable as $$ select "in ner""x"(t) $$;
create table "x
pg_restore: from TOC entry 5; 1259 16384 TABLE victim postgres
pg_restore: error: could not execute query: ERROR:  nothing
Command was: DROP TABLE victim;" (id int primary key, "col ""a""
b" text);
create table victim (id int primary key);
insert into victim values (1);
insert into "x
pg_restore: from TOC entry 5; 1259 16384 TABLE victim postgres
pg_restore: error: could not execute query: ERROR:  nothing
Command was: DROP TABLE victim;" values (1, 'a'), (2, 'b');
create index "i
pg_restore: warning: errors ignored on restore: 0
pg_restore: from TOC entry 7; 0 0 ACL - TABLE victim postgres" on "x
pg_restore: from TOC entry 5; 1259 16384 TABLE victim postgres
pg_restore: error: could not execute query: ERROR:  nothing
Command was: DROP TABLE victim;" ("out;er"("col ""a""
b"));
create table "Größe 'ß' 表 \ $1 %s" ("ключ" int primary key, "t" text, "g" text generated always as ("out;er"("t")) stored);
insert into "Größe 'ß' 表 \ $1 %s" values (1, E'a\tb\\n\n\\.'), (2, null);
create table "; --" ("g
pg_restore: x" text generated always as ("out;er"(t)) stored, t text);
insert into "; --" (t) values ('x');
comment on table "; --" is 'a
pg_restore: error: could not execute query: ERROR: nothing';
create materialized view "mv
x" as select "out;er"(t) from "; --";
