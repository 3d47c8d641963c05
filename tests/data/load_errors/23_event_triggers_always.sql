-- three event triggers, one ENABLE ALWAYS, one REPLICA, one disabled, with an owner of their own
-- people whose audit forbids DDL even to those who replicate
-- expect: whole
set check_function_bodies = off;
do $$ begin create role le_23_guard superuser; exception when duplicate_object or unique_violation then null; end $$;
create schema guarded;
create function guarded.f(i int) returns int language sql immutable as $$ select g(i) $$;
create function guarded.g(i int) returns int language sql immutable as $$ select i * 2 $$;
set search_path = guarded;
do $$ begin execute format('alter database %I set search_path = guarded', current_database()); end $$;
create table guarded.t (i int primary key, d int generated always as (f(i)) stored);
insert into guarded.t select generate_series(1, 9);
create index t_f on guarded.t (f(i));
create materialized view guarded.mv as select f(i) from t;
grant select on guarded.t to le_23_guard;
create function guarded.stop() returns event_trigger language plpgsql as $$ begin raise exception 'stop: %', tg_tag; end $$;
create event trigger a_start on ddl_command_start execute function guarded.stop();
create event trigger b_end on ddl_command_end when tag in ('CREATE INDEX', 'ALTER TABLE', 'REFRESH MATERIALIZED VIEW') execute function guarded.stop();
create event trigger c_drop on sql_drop execute function guarded.stop();
create event trigger d_rewrite on table_rewrite execute function guarded.stop();
alter event trigger a_start enable always;
alter event trigger b_end enable replica;
alter event trigger c_drop disable;
alter event trigger a_start owner to le_23_guard;
