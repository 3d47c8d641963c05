-- a materialized view whose owner may not read its table any more: the rows it holds are of another time
-- people who closed a table and kept the report
-- expect: errors 1
-- named: frozen
-- reason: permission denied
do $$ begin create role le_48_report; exception when duplicate_object or unique_violation then null; end $$;
create table source_of (i int);
insert into source_of select generate_series(1, 5);
create materialized view frozen as select sum(i) from source_of;
alter materialized view frozen owner to le_48_report;
create view bystander as select * from source_of;
