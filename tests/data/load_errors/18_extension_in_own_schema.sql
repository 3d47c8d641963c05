-- extensions in a schema of their own that the database's search_path names
-- people on hosted databases where extensions live in "extensions"
-- expect: whole
create schema ext;
create extension pgcrypto schema ext;
create extension citext schema ext;
do $$ begin execute format('alter database %I set search_path = "$user", public, ext', current_database()); end $$;
set search_path = "$user", public, ext;
create function fingerprint(t text) returns text language sql immutable as $$ select encode(digest(t, 'sha256'), 'hex') $$;
create function same(a citext, b citext) returns boolean language plpgsql immutable as $$ begin return a = b; end $$;
create table account (id int primary key, mail citext not null, key text,
  mark text generated always as (fingerprint(key)) stored, check (same(mail, mail)));
insert into account (id, mail, key) select i, 'a' || i || '@x.example', 'k' || i from generate_series(1, 25) i;
create unique index account_mark on account (fingerprint(key));
create unique index account_mail on account (mail);
