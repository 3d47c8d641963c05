-- a materialized view over a table with row security, owned by somebody to whom the policy applies
-- people who read "query would be affected by row-level security policy" and had an empty report
-- expect: whole
do $$ begin create role le_15_owner; exception when duplicate_object or unique_violation then null; end $$;
do $$ begin create role le_15_report; exception when duplicate_object or unique_violation then null; end $$;
create table entry (id int primary key, public boolean not null, amount int);
insert into entry select i, i % 2 = 0, i from generate_series(1, 20) i;
alter table entry owner to le_15_owner;
alter table entry enable row level security;
create policy open_ones on entry for select using (public);
grant select on entry to le_15_report;
create materialized view totals as select count(*), sum(amount) from entry;
alter materialized view totals owner to le_15_report;
refresh materialized view totals;
create index totals_sum on totals (sum);
