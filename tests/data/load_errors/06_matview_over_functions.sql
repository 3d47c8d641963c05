-- materialized views over functions that call functions without a schema, one upon another, with indexes and grants
-- people whose reports were there after the restore and said "has not been populated"
-- expect: whole
do $$ begin create role le_06_reader; exception when duplicate_object or unique_violation then null; end $$;
create table m (i int);
insert into m select generate_series(1, 30);
create function f() returns setof int language sql as 'select i from public.m';
create function g() returns table (n bigint) language sql as 'select count(*) from f()';
create materialized view v as select * from g();
create materialized view w as select v.n, i from v, f() i where i < 5;
create unique index w_i on w (i);
create view over_w as select sum(n) from w;
grant select on w to le_06_reader;
comment on materialized view w is 'upon v';
create materialized view empty_view as select 1 as one with no data;
