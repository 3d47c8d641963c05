-- the owner took the right to write from himself; the rows need a second try when the rights are set already
-- people with archives, and people whose tool sets rights for everybody alike
-- expect: whole
do $$ begin create role le_49_owner; exception when duplicate_object or unique_violation then null; end $$;
set check_function_bodies = off;
create function a(t text) returns text language sql immutable as $$ select b(t) $$;
create function b(t text) returns text language plpgsql immutable as $$ begin return c(t); end $$;
create function c(t text) returns text language sql immutable as $$ select upper(t) $$;
create function d(t text) returns text language plpgsql immutable as $$ begin return c(t); end $$;
create table closed (id int primary key, t text, u text generated always as (d(t)) stored);
insert into closed select i, 't' || i from generate_series(1, 20) i;
create index closed_a on closed (a(t));
create table points_there (id int references closed);
insert into points_there values (1), (2);
alter table closed owner to le_49_owner;
revoke all on closed from le_49_owner;
grant select on closed to le_49_owner;
