-- an expression index and a partial unique index over own functions that call each other without a schema
-- people who moved a rule of their program into a function and an index on it
-- expect: whole
create function digits(t text) returns text language sql immutable as $$ select regexp_replace(t, '[^0-9]', '', 'g') $$;
create function phone(t text) returns text language plpgsql immutable as $$ begin return '+' || digits(t); end $$;
create function is_phone(t text) returns boolean language plpgsql immutable as $$ begin return length(digits(t)) > 3; end $$;
create table contact (id int generated always as identity primary key, number text);
insert into contact (number) values ('030 / 12-34-56'), ('12'), ('0049 40 1'), (null);
create index contact_number on contact (phone(number));
create unique index contact_unique on contact (phone(number)) where is_phone(number);
create index contact_plain on contact (number);
