-- an inheriting table that may hold NULL where its parent may not: the dump does not say so
-- people who inherit and loosened one table: "null value in column violates not-null constraint", the table empty
-- expect: lost
-- named: loose
-- reason: null value in column
create table strict (id int not null, t text);
create table loose (more int) inherits (strict);
alter table loose alter id drop not null;
insert into strict values (1, 'a');
insert into loose values (2, 'b', 1), (null, 'c', 2);
create table bystander (i int primary key);
insert into bystander values (1), (2);
