-- functions that belong to others, closed to PUBLIC, in indexes, checks and generated columns of a table
-- people with one role for code and one for data, and default rights taken away
-- expect: whole
set check_function_bodies = off;
do $$ begin create role le_25_code; exception when duplicate_object or unique_violation then null; end $$;
do $$ begin create role le_25_data; exception when duplicate_object or unique_violation then null; end $$;
create schema code authorization le_25_code;
create schema data authorization le_25_data;
grant usage on schema code to le_25_data;
create function code.secret() returns text language sql immutable security definer as $$ select 'salt' $$;
create function code.mark(t text) returns text language sql immutable as $$ select md5(t || secret()) $$;
do $$ begin execute format('alter database %I set search_path = data, code', current_database()); end $$;
set search_path = data, code;
alter function code.secret() owner to le_25_code;
alter function code.mark(text) owner to le_25_code;
create table data.t (id int primary key, t text, m text generated always as (mark(t)) stored, check (mark(t) <> ''));
insert into data.t values (1, 'a'), (2, 'b');
alter table data.t owner to le_25_data;
create index t_mark on data.t (mark(t));
revoke execute on function code.secret() from public;
revoke execute on function code.mark(text) from public;
grant execute on function code.mark(text), code.secret() to le_25_data;
