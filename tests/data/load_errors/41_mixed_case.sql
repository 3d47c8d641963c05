-- schemas, tables, functions and a role in mixed case, found by a search_path in quotes
-- people whose tables come from an ORM of another world
-- expect: whole
do $$ begin create role "le_41_App"; exception when duplicate_object or unique_violation then null; end $$;
create schema "Sales" authorization "le_41_App";
do $$ begin execute format('alter database %I set search_path = "Sales", "$user", public', current_database()); end $$;
set search_path = "Sales", public;
set role "le_41_App";
create function "Norm"(t text) returns text language sql immutable as $$ select lower(t) $$;
create function "KeyOf"(t text) returns text language sql immutable as $$ select "Norm"(t) $$;
create table "OrderLine" ("Id" int generated always as identity primary key, "Text" text, "Key" text generated always as ("KeyOf"("Text")) stored);
insert into "OrderLine" ("Text") select 'T' || i from generate_series(1, 12) i;
create index "IX_Key" on "OrderLine" ("KeyOf"("Text"));
create materialized view "Keys" as select "KeyOf"("Text") as "K" from "OrderLine";
reset role;
