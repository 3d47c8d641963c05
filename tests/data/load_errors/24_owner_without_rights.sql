-- tables whose owner may not create in their schema, nor use it any more
-- people who took the rights on "public" away, or let an administrator make the tables of a program
-- expect: whole
do $$ begin create role le_24_app; exception when duplicate_object or unique_violation then null; end $$;
create schema closed;
create function closed.low(t text) returns text language sql immutable as $$ select lower(t) $$;
create function closed.key_of(t text) returns text language plpgsql immutable as $$ begin return closed.low(t) || far(t); end $$;
create function far(t text) returns text language sql immutable as $$ select '!' $$;
set search_path = closed, public;
grant usage on schema closed to le_24_app;
create table closed.t (id int primary key, t text, k text generated always as (key_of(t)) stored);
alter table closed.t owner to le_24_app;
insert into closed.t values (1, 'A'), (2, 'B');
create index t_key on closed.t (key_of(t));
create function far2(t text) returns boolean language sql immutable as $$ select far(t) = '!' $$;
create table public.u (id int primary key, t text, constraint u_far check (far2(t)));
alter table public.u owner to le_24_app;
insert into public.u values (1, 'x'), (2, 'y');
create index u_far_index on public.u (far2(t));
create materialized view closed.mv as select key_of(t) from closed.t;
alter materialized view closed.mv owner to le_24_app;
revoke usage on schema closed from le_24_app;
