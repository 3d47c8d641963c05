-- no schema "public" at all, another in its place
-- people who drop it as the first thing, as guides on safety say
-- expect: whole
-- more: schema public
create schema main39;
do $$ begin execute format('alter database %I set search_path = main39', current_database()); end $$;
set search_path = main39;
drop schema public;
create function b(i int) returns int language sql immutable as $$ select i * 3 $$;
create function a(i int) returns int language sql immutable as $$ select b(i) $$;
create table t (i int primary key, x int generated always as (a(i)) stored);
insert into t select generate_series(1, 5);
create index t_a on t (a(i));
