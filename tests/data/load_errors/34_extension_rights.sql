-- rights and comments on what belongs to extensions, and an index that calls such a function
-- people who close dblink or pg_stat_statements to everybody but one role
-- expect: whole
do $$ begin create role le_34_app; exception when duplicate_object or unique_violation then null; end $$;
create extension pg_trgm;
create extension pgcrypto;
create extension pg_stat_statements;
comment on extension pg_trgm is 'like and unlike';
revoke execute on function digest(text, text) from public;
grant execute on function digest(text, text) to le_34_app;
grant select on pg_stat_statements to le_34_app;
create function mark(t text) returns text language sql immutable security definer as $$ select encode(digest(t, 'md5'), 'hex') $$;
create table t (id int primary key, t text);
insert into t values (1, 'a'), (2, 'b');
create index t_mark on t (mark(t));
