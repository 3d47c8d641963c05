-- foreign keys in a circle, a table that points to itself, inheritance, rules, and a child with looser rules than its parent
-- people with an employee who leads the department that employs him
-- expect: whole
create table department (id int primary key, head int);
create table employee (id int primary key, department int references department deferrable initially deferred, boss int references employee);
alter table department add foreign key (head) references employee deferrable initially deferred;
begin;
insert into department values (1, 1), (2, 3);
insert into employee values (1, 1, null), (2, 1, 1), (3, 2, 2);
commit;
create table base (id int primary key, t text default 'x');
create table derived (more int) inherits (base);
alter table derived alter t set default 'y';
insert into base values (1, 'b');
insert into derived values (2, 'd', 3);
create table target (i int);
create rule into_target as on insert to base where new.id > 100 do instead insert into target values (new.id);
create rule also as on delete to derived do also notify derived_gone;
