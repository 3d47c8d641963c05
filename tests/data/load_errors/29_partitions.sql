-- partitions with checks of functions, an index over a function on the parent, foreign keys to and from it
-- people with a table for each month
-- expect: whole
set check_function_bodies = off;
create table kinds (kind text primary key);
insert into kinds values ('x'), ('y');
create function kind_ok(k text) returns boolean language sql stable as $$ select exists (select from kinds where kind = k) $$;
create function low(k text) returns text language sql immutable as $$ select lower2(k) $$;
create function lower2(k text) returns text language sql immutable as $$ select lower(k) $$;
create table measure (id int, day date not null, kind text references kinds, primary key (id, day)) partition by range (day);
create table measure_1 partition of measure (check (kind_ok(kind))) for values from ('2025-01-01') to ('2025-02-01');
create table measure_2 (id int not null, kind text, day date not null, extra_check int default 0);
alter table measure_2 drop column extra_check;
alter table measure attach partition measure_2 for values from ('2025-02-01') to ('2025-03-01');
create table measure_rest partition of measure default partition by range (day);
create table measure_rest_x partition of measure_rest for values from ('2025-03-01') to ('2026-01-01');
insert into measure select i, date '2025-01-01' + i, 'x' from generate_series(1, 80) i;
create index measure_low on measure (low(kind));
create table remark (id int, day date, foreign key (id, day) references measure);
insert into remark values (3, '2025-01-04'), (50, '2025-02-20');
