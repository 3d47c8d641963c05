-- foreign servers, user mappings and tables, and a materialized view over a file that is gone
-- people with a report over another server that is not there on the day of the restore
-- expect: errors 1
-- named: from_file
-- reason: could not open file
do $$ begin create role le_36_app; exception when duplicate_object or unique_violation then null; end $$;
create extension postgres_fdw;
create extension file_fdw;
create server far foreign data wrapper postgres_fdw options (host '127.0.0.1', port '1', dbname 'none');
create user mapping for le_36_app server far options (user 'u', password 'canary-mapping');
create user mapping for public server far options (user 'p');
create foreign table remote (id int, t text) server far options (schema_name 'public', table_name 't');
alter foreign table remote alter id options (column_name 'ident');
grant usage on foreign server far to le_36_app;
copy (select i, 't' || i from generate_series(1, 5) i) to program 'cat > le_36.data';
create server files foreign data wrapper file_fdw;
create foreign table in_file (i int, t text) server files options (filename 'le_36.data');
create materialized view from_file as select * from in_file;
create index from_file_i on from_file (i);
copy (select 1) to program 'rm -f le_36.data; cat > /dev/null';
