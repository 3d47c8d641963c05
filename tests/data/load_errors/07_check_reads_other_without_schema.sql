-- a CHECK whose function reads another table by a name without schema
-- people who check against a table of allowed values where a foreign key was not possible
-- expect: whole
create table allowed (kind text primary key);
insert into allowed values ('a'), ('b');
create function is_allowed(k text) returns boolean language sql stable as $$ select exists (select from allowed where kind = k) $$;
create table thing (id int primary key, kind text check (is_allowed(kind)));
insert into thing values (1, 'a'), (2, 'b'), (3, 'a');
create index thing_kind on thing (kind);
