-- two tables whose checks read each other, and one whose check reads its own rows: no order of tables loads all
-- people with invoices that need a position and positions that need an invoice
-- expect: whole
create table invoice (id int primary key, total int);
create table position_of (invoice int, amount int);
insert into invoice values (1, 10), (2, 20);
insert into position_of values (1, 4), (1, 6), (2, 20);
create function has_positions(i int) returns boolean language sql stable as $$ select exists (select from public.position_of where invoice = i) $$;
create function has_invoice(i int) returns boolean language sql stable as $$ select exists (select from public.invoice where id = i) $$;
alter table invoice add constraint invoice_has_positions check (has_positions(id));
alter table position_of add constraint position_has_invoice check (has_invoice(invoice));
create table tree (id int primary key, parent int);
insert into tree values (1, null), (2, 1), (3, 2);
create function has_node(i int) returns boolean language plpgsql stable as $$ begin
  return i is null or exists (select from public.tree where id = i); end $$;
alter table tree add constraint tree_parent check (has_node(parent));
