-- functions that need settings of the database other than the search_path
-- people with a salt, a tenant or a date style that ALTER DATABASE holds: "unrecognized configuration parameter"
-- expect: whole
do $$ begin
  execute format('alter database %I set app51.salt = %L', current_database(), 'a, b');
  execute format('alter database %I set datestyle = %L', current_database(), 'German, DMY');
end $$;
set app51.salt = 'a, b';
set datestyle = 'German, DMY';
create function salted(t text) returns text language plpgsql immutable as $$ begin return current_setting('app51.salt') || t; end $$;
create function day_of(t text) returns date language plpgsql immutable as $$ begin return t::date; end $$;
create table t (id int primary key, t text, d text, s text generated always as (salted(t)) stored, check (day_of(d) < '01.02.2025'));
insert into t values (1, 'x', '31.01.2025'), (2, 'y', '12.11.2024');
create index t_day on t (day_of(d));
create materialized view days as select day_of(d) from t;
