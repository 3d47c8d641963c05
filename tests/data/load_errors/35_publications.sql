-- publications of tables, of schemas, with columns and conditions, and a subscription
-- people who replicate a part; a table that is made at the second try must be in them again
-- expect: whole
-- in place: has subscriptions (le_35_sub)
-- in place it is refused: a database with a subscription cannot be dropped, and the subscription's slot is the publisher's
create extension hstore;
create schema pub35;
create table public.a (id int primary key, t text, secret text);
create table pub35.b (id int primary key, name hstore, other hstore, check (nullif(name, other) is not null));
insert into public.a values (1, 'x', 'y'), (20, 'z', 'y');
insert into pub35.b values (1, 'a=>1', 'b=>2');
create publication part for table public.a (id, t) where (id > 10), table pub35.b with (publish = 'insert, update');
create publication of_schema for tables in schema pub35;
create publication whole for all tables;
create subscription le_35_sub connection 'host=127.0.0.1 port=1 dbname=none' publication part with (connect = false, slot_name = none);
