-- views, functions and tables that were renamed and moved after others were made of them; a constraint, an index and a type of one name in two schemas
-- people with ten years of migrations behind them
-- expect: whole
create schema one;
create schema two;
set check_function_bodies = off;
create function one.f(i int) returns int language sql immutable as $$ select i + 1 $$;
create function two.f(i int) returns int language sql immutable as $$ select i + 2 $$;
create table one.t (i int constraint same_name primary key, k int, e int);
create table two.t (i int constraint same_name primary key, k int, e int);
set search_path = two, one;
create function one.g(i int) returns int language sql immutable as $$ select f(i) $$;
create function two.g(i int) returns int language plpgsql immutable as $$ begin return f(i); end $$;
do $$ begin execute format('alter database %I set search_path = two, one', current_database()); end $$;
insert into one.t select i, i, i from generate_series(1, 10) i;
insert into two.t select i, i, i from generate_series(1, 10) i;
create index by_g on one.t (one.g(i));
create index by_g on two.t (two.g(i));
create materialized view one.m as select one.g(i) as x, two.g(i) as y from two.t;
alter table two.t rename column k to "order";
alter table one.t rename to moved;
alter table one.moved drop constraint same_name;
alter index one.by_g rename to by_h;
alter table one.moved set schema two;
