-- a CHECK of a partitioned table, whose function reads a table that is checked the other way round
-- people who partitioned what was one table with such a check: every partition has it too
-- expect: whole
create table part55 (id int, other int) partition by range (id);
create table part55_1 partition of part55 for values from (0) to (100);
create table part55_2 (id int, other int, constraint two_own check (id >= 100));
create table asked55 (id int primary key, of int);
create function known55(o int) returns boolean language sql stable as $$ select o is null or exists (select from public.asked55 where id = o) $$;
create function used55(o int) returns boolean language sql stable as $$ select exists (select from public.part55 where id = o) $$;
alter table part55 attach partition part55_2 for values from (100) to (200);
insert into asked55 values (1, 5), (2, 105);
insert into part55 values (5, 1), (105, 2), (106, null);
alter table part55 add constraint other_known check (known55(other));
alter table part55_2 add constraint other_known_again check (known55(other));
alter table asked55 add constraint is_used check (used55(of));
