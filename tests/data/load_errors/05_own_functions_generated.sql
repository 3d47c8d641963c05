-- generated columns over own functions, with a trigger that would change each row again and a sequence in a default
-- people who let the database make a slug, and people whose triggers ran a second time on restored rows
-- expect: whole
create function plain(t text) returns text language sql immutable as $$ select lower(trim(t)) $$;
create function slug(t text) returns text language plpgsql immutable as $$ begin return replace(plain(t), ' ', '-'); end $$;
create sequence ticket start 100 increment 5;
create table article (id int default nextval('ticket') primary key, title text, changed int not null default 0,
  address text generated always as (slug(title)) stored);
insert into article (title) values (' Hello World '), ('Second'), (null);
create function touch() returns trigger language plpgsql as $$ begin
  new.changed := new.changed + 1; perform nextval('ticket'); insert into log values (new.id); return new; end $$;
create table log (id int);
create trigger touch before insert or update on article for each row execute function touch();
create trigger always_touch before insert on article for each row execute function touch();
alter table article enable always trigger always_touch;
insert into article (title) values ('With its triggers');
