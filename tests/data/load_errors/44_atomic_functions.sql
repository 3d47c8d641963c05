-- functions with a body that is parsed when it is made, in a circle with tables and keys; views that need a primary key
-- people who took to BEGIN ATOMIC and GROUP BY a key
-- expect: whole
set check_function_bodies = off;
create table customer (id int primary key, name text, city text);
insert into customer values (1, 'a', 'x'), (2, 'b', 'y');
create table sale (customer int references customer, amount int);
insert into sale values (1, 3), (1, 4), (2, 5);
create function total(c int) returns bigint language sql stable begin atomic select sum(amount) from sale where customer = c; end;
create function named() returns table (n text, s bigint) language sql stable begin atomic select c.name, sum(amount) from customer c join sale on customer = id group by c.id; end;
create view by_key as select c.*, sum(amount) from customer c join sale on customer = id group by c.id;
create materialized view kept as select c.*, count(*) from customer c join sale on customer = id group by c.id;
create view on_kept as select * from kept where total(id) > 1;
create function path_set(t text) returns text language sql immutable set search_path = public as $$ select helper(t) $$;
create function helper(t text) returns text language sql immutable as $$ select lower(t) $$;
create index customer_path on customer (path_set(name));
