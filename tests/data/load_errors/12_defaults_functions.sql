-- defaults that call functions which call functions, with nextval, and a row type compared with a wrapped type
-- people whose keys come from a function: plain loads are near it, and nothing may be numbered again
-- expect: whole
create sequence code_seq start 7;
create function pad(i bigint) returns text language sql immutable as $$ select lpad(i::text, 6, '0') $$;
create function next_code() returns text language sql volatile as $$ select 'C' || pad(nextval('code_seq')) $$;
create function check_of(t text) returns int language plpgsql immutable as $$ begin return length(pad(length(t))); end $$;
create table coded (code text default next_code() primary key, at timestamptz not null default date_trunc('day', now()), n serial,
  check_digit int generated always as (check_of(code)) stored);
insert into coded default values;
insert into coded default values;
insert into coded (code) values ('X');
select setval('code_seq', 4711);
