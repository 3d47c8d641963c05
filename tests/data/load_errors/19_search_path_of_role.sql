-- the search_path stands with the role that owns the tables, and nowhere else
-- people who gave each program its role and the role its schema
-- expect: whole
set check_function_bodies = off;
do $$ begin create role le_19_app; exception when duplicate_object or unique_violation then null; end $$;
alter role le_19_app set search_path = app19, lib19;
create schema lib19;
create schema app19 authorization le_19_app;
grant usage on schema lib19 to le_19_app;
create function lib19.inner_one(t text) returns text language sql immutable as $$ select reverse(t) $$;
set search_path = app19, lib19;
set role le_19_app;
create function outer_one(t text) returns text language sql immutable as $$ select inner_one(t) || inner_two(t) $$;
create function inner_two(t text) returns text language sql immutable as $$ select upper(t) $$;
create table word (id int primary key, t text, made text generated always as (outer_one(t)) stored);
insert into word select i, 'w' || i from generate_series(1, 10) i;
create index word_outer on word (outer_one(t));
create materialized view words as select id, outer_one(t) from word;
reset role;
