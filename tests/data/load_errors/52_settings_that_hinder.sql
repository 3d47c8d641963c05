-- settings of the database and of the owner that would stop a load: read-only by default, short timeouts, another role
-- people who put a database to rest, or keep a web program's statements short
-- expect: whole
do $$ begin create role le_52_app; exception when duplicate_object or unique_violation then null; end $$;
alter role le_52_app set statement_timeout = '1ms';
alter role le_52_app set default_transaction_read_only = on;
set check_function_bodies = off;
create function slow(t text) returns text language plpgsql immutable as $$ begin perform pg_sleep(0.01); return quick(t); end $$;
create function quick(t text) returns text language sql immutable as $$ select upper(t) $$;
create table t (id int primary key, t text, u text generated always as (slow(t)) stored);
alter table t owner to le_52_app;
insert into t values (1, 'a'), (2, 'b');
create index t_slow on t (slow(t));
do $$ begin
  execute format('alter database %I set default_transaction_read_only = on', current_database());
  execute format('alter database %I set statement_timeout = 5', current_database());
  execute format('alter database %I set lock_timeout = 5', current_database());
  execute format('alter database %I set transform_null_equals = on', current_database());
end $$;
