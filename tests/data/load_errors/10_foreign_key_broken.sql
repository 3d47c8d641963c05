-- a foreign key that the rows break: they came in or went while triggers were off
-- people who loaded or cleaned with session_replication_role = replica, or disabled all triggers for a night
-- expect: errors 1
-- named: sale_customer_fkey
-- reason: is not present in table
create table customer (id int primary key, name text);
create table sale (id int primary key, customer int constraint sale_customer_fkey references customer, amount numeric);
create table note_of (sale int references sale);
insert into customer values (1, 'a'), (2, 'b'), (3, 'c');
insert into sale select i, i % 3 + 1, i from generate_series(1, 30) i;
insert into note_of values (1), (2);
set session_replication_role = replica;
delete from customer where id = 2;
reset session_replication_role;
