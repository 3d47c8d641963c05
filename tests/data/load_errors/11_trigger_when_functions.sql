-- triggers with WHEN that call functions, and one that compares whole rows with a column of hstore
-- people whose triggers were gone after a restore: "operator does not exist: public.hstore = public.hstore"
-- expect: whole
set check_function_bodies = off;
create extension hstore;
create function differs(a text, b text) returns boolean language sql immutable as $$ select norm(a) is distinct from norm(b) $$;
create function norm(a text) returns text language sql immutable as $$ select lower(a) $$;
create table item (id int primary key, name text, attrs hstore, version int not null default 1);
insert into item values (1, 'A', 'a=>1'), (2, 'B', null);
create function bump() returns trigger language plpgsql as $$ begin new.version := old.version + 1; return new; end $$;
create trigger a_name before update on item for each row when (differs(old.name, new.name)) execute function bump();
create trigger b_attrs before update on item for each row when (old.attrs is distinct from new.attrs) execute function bump();
create trigger c_whole after update on item for each row when (old.* is distinct from new.*) execute function bump();
alter table item disable trigger c_whole;
comment on trigger b_attrs on item is 'of attrs';
update item set name = 'C', attrs = 'x=>2' where id = 1;
