-- a schema for each tenant, the same names in each, and the search_path set by the session alone
-- people whose framework sends SET search_path at the begin of each request
-- expect: whole
create schema tenant_a;
create schema tenant_b;
set search_path = tenant_a, public;
create function norm(t text) returns text language sql immutable as $$ select 'a' || lower(t) $$;
create function key_of(t text) returns text language plpgsql immutable as $$ begin return norm(t); end $$;
create table doc (id int primary key, t text, k text generated always as (key_of(t)) stored);
insert into doc values (1, 'One'), (2, 'Two');
create index doc_key on doc (key_of(t));
create materialized view keys as select key_of(t) from doc;
set search_path = tenant_b, public;
create function norm(t text) returns text language sql immutable as $$ select 'b' || upper(t) $$;
create function key_of(t text) returns text language plpgsql immutable as $$ begin return norm(t); end $$;
create table doc (id int primary key, t text, k text generated always as (key_of(t)) stored);
insert into doc values (1, 'Three'), (3, 'Four');
create index doc_key on doc (key_of(t));
create materialized view keys as select key_of(t) from doc;
