-- a row that breaks a CHECK whose function was made stricter after the row came in
-- people who replaced a function; one such row and pg_restore leaves the whole table empty
-- expect: errors 1
-- named: amount_ok
-- reason: is violated by some row
-- changed: constraint public.payment.amount_ok
-- the rows come back all the same; the check is put back NOT VALID, and that is what is listed
create function amount_is_ok(a int) returns boolean language sql immutable as $$ select a > -100 $$;
create table payment (id int primary key, amount int, of text default 'canary-row', constraint amount_ok check (amount_is_ok(amount)));
insert into payment select i, i - 5 from generate_series(1, 50) i;
create table refund (payment int references payment);
insert into refund values (3), (7);
create or replace function amount_is_ok(a int) returns boolean language sql immutable as $$ select a > 0 $$;
