-- default rights: what is made at a second try, when they are in place already, must not get them
-- people who give a reader all that will be made, and close functions to PUBLIC
-- expect: whole
set check_function_bodies = off;
do $$ begin create role le_45_app; exception when duplicate_object or unique_violation then null; end $$;
do $$ begin create role le_45_reader; exception when duplicate_object or unique_violation then null; end $$;
create extension hstore;
create schema s45 authorization le_45_app;
set role le_45_app;
set search_path = s45, public;
create table s45.t (id int primary key, a public.hstore, b public.hstore, check (a is distinct from b));
insert into s45.t values (1, 'x=>1', 'y=>1');
create view s45.v as select nullif(a, b) from s45.t;
create function s45.inner_one(i int) returns int language sql immutable as $$ select i $$;
create function s45.outer_one(i int) returns int language sql immutable as $$ select inner_one(i) $$;
set search_path = s45, public;
create materialized view s45.m as select outer_one(id) from s45.t;
create sequence s45.q;
alter default privileges in schema s45 grant select on tables to le_45_reader;
alter default privileges in schema s45 grant usage on sequences to le_45_reader;
alter default privileges revoke execute on functions from public;
alter default privileges grant all on tables to public;
create table s45.later (i int);
reset role;
alter default privileges in schema s45 grant insert on tables to le_45_reader;
