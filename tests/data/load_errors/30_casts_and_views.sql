-- a cast of one's own, views that use it, a comparison of such types that the dump cannot name by schema
-- people with types of their own: "operator does not exist" when the views are made again
-- expect: whole
set check_function_bodies = off;
create type money_of as (amount numeric, currency text);
create function to_number(m money_of) returns numeric language sql immutable as $$ select rate(m.currency) * m.amount $$;
create function rate(c text) returns numeric language sql immutable as $$ select case c when 'EUR' then 1 else 2 end::numeric $$;
create cast (money_of as numeric) with function to_number(money_of) as assignment;
create table price (id int primary key, m money_of, n numeric generated always as (m::numeric) stored);
insert into price values (1, (10, 'EUR')), (2, (10, 'USD'));
create view in_numbers as select id, m::numeric as n from price;
create extension hstore;
create table login (id int primary key, name hstore, alias hstore);
insert into login values (1, 'a=>1', 'a=>1'), (2, 'b=>1', 'b=>2');
create view same_name as select id, nullif(name, alias) as differs, name is distinct from alias as other from login;
create view joined as select id, name, a.alias from login a join (select name, alias as x from login) b using (name);
create view over_joined as select count(*) from joined;
create materialized view kept as select * from same_name;
