-- domains whose CHECK calls a function, which calls another or reads a table that is loaded later
-- people who keep the rules of a value at its type
-- expect: whole
set check_function_bodies = off;
create table zz_country (iso text primary key);
insert into zz_country values ('de'), ('fi');
create function known(c text) returns boolean language sql stable as $$ select exists (select from zz_country where iso = c) $$;
create function tidy(c text) returns text language sql immutable as $$ select lower(c) $$;
create domain country as text constraint is_known check (value is null or known(tidy(value)));
create domain euro as numeric(12, 2) not null default 0 check (value >= 0);
create table address (id int primary key, land country, price euro, lands country[]);
insert into address values (1, 'de', 3, '{de,fi}'), (2, 'fi', 4, null), (3, null, 5, '{}');
comment on domain country is 'ISO';
