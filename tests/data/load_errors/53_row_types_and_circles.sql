-- a generated column over a function that is given a composite type, a view that belongs to such a function, and a circle of view and function
-- people who let computed fields of an API be functions of the row
-- expect: whole
set check_function_bodies = off;
create type shape as (w int, h int);
create function area(s shape) returns int language sql immutable as $$ select times(s.w, s.h) $$;
create function times(a int, b int) returns int language sql immutable as $$ select a * b $$;
create table crate (id int primary key, s shape, a int generated always as (area(s)) stored);
insert into crate values (1, (2, 3)), (2, (4, 5));
create function label(b crate) returns text language sql stable as $$ select (b).id || ':' || area((b).s) $$;
create view labels as select id, label(crate) from crate;
create function of_labels() returns setof labels language sql stable as $$ select * from labels $$;
create view upon as select count(*) from of_labels();
create materialized view kept as select * from of_labels();
create unique index kept_id on kept (id);
create table copies (like crate including all, b crate);
insert into copies (id, s, b) select id, s, crate from crate;
