-- foreign keys between tables whose indexes rest on functions, of other owners, and broken by rows beside a materialized view of them
-- people who have all of it: one key that is broken must not take the others with it
-- expect: errors 1
-- named: bought_broken
-- reason: is not present in table
set check_function_bodies = off;
do $$ begin create role le_56_app; exception when duplicate_object or unique_violation then null; end $$;
create function outer56(t text) returns text language sql immutable as $$ select inner56(t) $$;
create function inner56(t text) returns text language sql immutable as $$ select lower(t) $$;
create table buyer (id int primary key, name text);
create table bought (id int primary key, buyer int constraint bought_good references buyer, gone int constraint bought_broken references buyer);
alter table bought owner to le_56_app;
create index buyer_name on buyer (outer56(name));
insert into buyer values (1, 'A'), (2, 'B');
insert into bought values (1, 1, 2), (2, 1, 1);
create materialized view sold56 as select outer56(name) from buyer join bought on bought.buyer = buyer.id;
set session_replication_role = replica;
delete from buyer where id = 2;
reset session_replication_role;
