-- functions that see who runs them: a CHECK and an index that fail for a superuser and work for the owner
-- people who guard a rule by the role; and whoever puts a function in a dump and waits for the superuser who restores it
-- expect: whole
do $$ begin create role le_50_app; exception when duplicate_object or unique_violation then null; end $$;
create schema app50 authorization le_50_app;
set role le_50_app;
set search_path = app50;
create function app50.low(t text) returns boolean language plpgsql as $$ begin
  if current_setting('is_superuser') = 'on' then raise exception 'run by the superuser %', current_user; end if;
  return current_user = 'le_50_app'; end $$;
create table app50.t (id int primary key, t text check (app50.low(t)));
insert into app50.t values (1, 'a'), (2, 'b');
create function app50.inner_name(t text) returns text language sql immutable as $$ select t || current_user $$;
create function app50.name_of(t text) returns text language sql immutable as $$ select inner_name(t) $$;
create index t_name on app50.t (name_of(t));
reset role;
