-- an event trigger that forbids DDL, beside an index and a materialized view that need a second try
-- people who lock their schema against accidents
-- expect: whole
create function one(i int) returns int language sql immutable as $$ select i + 1 $$;
create function two(i int) returns int language plpgsql immutable as $$ begin return one(i) + 1; end $$;
create table t (i int primary key);
insert into t select generate_series(1, 9);
create index t_two on t (two(i));
create materialized view mv as select two(i) from t;
create view plain_view as select * from t;
comment on view plain_view is 'plain';
create function no_ddl() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL here: %', tg_tag; end $$;
create event trigger no_ddl on ddl_command_start execute function no_ddl();
comment on event trigger no_ddl is 'a lock';
