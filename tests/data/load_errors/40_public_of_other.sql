-- "public" belongs to another role, with rights and a comment of its own, and its tables to a third
-- people whose database was made by a panel or came from before PostgreSQL 15
-- expect: whole
do $$ begin create role le_40_panel; exception when duplicate_object or unique_violation then null; end $$;
do $$ begin create role le_40_app; exception when duplicate_object or unique_violation then null; end $$;
alter schema public owner to le_40_panel;
grant create on schema public to public;
comment on schema public is 'of the panel';
set role le_40_app;
create function b(i int) returns int language sql immutable as $$ select i * 3 $$;
create function a(i int) returns int language sql immutable as $$ select b(i) $$;
create table t (i int primary key, x int generated always as (a(i)) stored);
insert into t select generate_series(1, 5);
create index t_a on t (a(i));
create materialized view mv as select a(i) from t;
reset role;
revoke create on schema public from public;
revoke usage on schema public from public;
