-- the search_path stands with the role in this database, against another one of the database
-- people with several databases of the same program on one server
-- expect: whole
do $$ begin create role le_20_app; exception when duplicate_object or unique_violation then null; end $$;
create schema app20 authorization le_20_app;
create schema other20;
do $$ begin
  execute format('alter database %I set search_path = other20', current_database());
  execute format('alter role le_20_app in database %I set search_path = app20', current_database());
end $$;
create function other20.half(i int) returns int language sql immutable as $$ select -1 $$;
set search_path = app20;
set role le_20_app;
create function half(i int) returns int language sql immutable as $$ select i / 2 $$;
create function quarter(i int) returns int language sql immutable as $$ select half(half(i)) $$;
create table number (i int primary key, q int generated always as (quarter(i)) stored);
insert into number select generate_series(1, 12);
create index number_quarter on number (quarter(i));
create materialized view numbers as select quarter(i) from number;
reset role;
