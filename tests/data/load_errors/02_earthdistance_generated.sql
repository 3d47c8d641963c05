-- the same function in a generated column: the rows of the table cannot be copied
-- people whose loggers keep the place as a column, and found the table empty after a restore
-- expect: whole
create extension cube;
create extension earthdistance;
create table place (id bigserial primary key, la float8 not null, lo float8 not null,
  at earth generated always as (ll_to_earth(la, lo)) stored);
insert into place (la, lo) select i, i * 2 from generate_series(1, 40) i;
create index place_at on place using gist (at);
create table visit (place bigint references place, day date);
insert into visit select i, date '2025-01-01' + i from generate_series(1, 40) i;
