-- large objects with owners, rights and comments, pointed to by a table that needs a second try
-- people whose program keeps attachments in the database
-- expect: whole
set check_function_bodies = off;
do $$ begin create role le_33_app; exception when duplicate_object or unique_violation then null; end $$;
create function name_of(t text) returns text language sql immutable as $$ select name_inner(t) $$;
create function name_inner(t text) returns text language sql immutable as $$ select lower(t) $$;
create table attachment (id int primary key, body oid, t text, n text generated always as (name_of(t)) stored);
insert into attachment select i, lo_from_bytea(70000 + i, convert_to(repeat('x' || i, 3000), 'UTF8')), 'T' || i from generate_series(1, 5) i;
alter large object 70001 owner to le_33_app;
grant select on large object 70002 to le_33_app;
comment on large object 70003 is 'a scan';
select lo_create(70009);
