-- NOT VALID constraints that rows break: they stay NOT VALID and load
-- people who add a rule for new rows only
-- expect: whole
create table old_row (id int primary key, n int);
insert into old_row values (1, -1), (2, 1);
alter table old_row add constraint positive check (n > 0) not valid;
create table parent (id int primary key);
create table child (parent int);
insert into child values (99);
alter table child add constraint child_parent foreign key (parent) references parent not valid;
