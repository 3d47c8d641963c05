-- rights that the owner of a table lost after the index, the key and the view were made: they must be built before the rights are set
-- people with archives that nobody may read or write any more; pg_restore sets the rights last
-- expect: whole
set check_function_bodies = off;
do $$ begin create role le_26_owner; exception when duplicate_object or unique_violation then null; end $$;
create table year (y int primary key, t text);
create table month_of (y int references year, m int);
create function shown(t text) returns text language sql immutable as $$ select public.shown_inner(t) $$;
create function shown_inner(t text) returns text language sql immutable as $$ select upper(t) $$;
insert into year select i, 't' || i from generate_series(2000, 2010) i;
insert into month_of select 2000 + i, i from generate_series(1, 10) i;
create index year_shown on year (shown(t));
alter table year owner to le_26_owner;
alter table month_of owner to le_26_owner;
revoke all on year, month_of from le_26_owner;
revoke execute on function shown(text), shown_inner(text) from public;
revoke usage on schema public from public;
