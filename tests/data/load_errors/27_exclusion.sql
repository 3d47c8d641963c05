-- exclusion constraints with btree_gist in another schema and an own function in the expression
-- people who keep bookings from overlapping
-- expect: whole
set check_function_bodies = off;
create schema ext27;
create extension btree_gist schema ext27;
create function span(a date, b date) returns daterange language sql immutable as $$ select range_of(a, b) $$;
create function range_of(a date, b date) returns daterange language sql immutable as $$ select daterange(a, b, '[)') $$;
create table stay (room int, a date, b date, cancelled boolean not null default false,
  constraint no_overlap exclude using gist (room with operator(pg_catalog.=), span(a, b) with &&) where (not cancelled) deferrable);
insert into stay select i, date '2025-01-01', date '2025-01-05' from generate_series(1, 15) i;
insert into stay values (1, '2025-01-01', '2025-01-03', true);
