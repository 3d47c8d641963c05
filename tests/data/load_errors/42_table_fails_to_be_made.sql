-- a table that cannot be made at all with an empty search_path, and all that hangs on it: rows, keys, rights, policies, comments, partitions
-- people with hstore in a CHECK: "operator does not exist: public.hstore = public.hstore"
-- expect: whole
do $$ begin create role le_42_app; exception when duplicate_object or unique_violation then null; end $$;
create extension hstore;
create table member (id serial primary key, name hstore unique, nick hstore,
  constraint other_nick check (name is distinct from nick), n int generated always as (2 * 3) stored);
insert into member (name, nick) select hstore('i', i::text), hstore('n', i::text) from generate_series(1, 20) i;
create table badge (member int references member on delete cascade, b text);
insert into badge select i, 'b' from generate_series(1, 20) i;
alter table member owner to le_42_app;
alter table member enable row level security;
create policy p on member using (nullif(name, nick) is not null);
grant select (id, name) on member to public;
comment on table member is 'members';
comment on column member.nick is 'not the name';
create index member_nick on member (nick) where nick is distinct from name;
create function stamp() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger stamp before update on member for each row when (old.name is distinct from new.name) execute function stamp();
create view members as select id, name from member where name is distinct from nick;
grant select on members to le_42_app;
create table journal (day date not null, who hstore, whom hstore, check (nullif(who, whom) is not null)) partition by range (day);
create table journal_1 partition of journal for values from ('2025-01-01') to ('2026-01-01');
insert into journal values ('2025-05-05', 'a=>1', 'b=>1');
create rule no_delete as on delete to journal_1 where old.who is distinct from old.whom do instead nothing;
create table heir (more int) inherits (member);
insert into heir (name, nick, more) values ('heir=>1', 'h=>1', 1);
create domain other_than_x as hstore check (value is distinct from 'x=>1'::hstore);
create table of_domain (d other_than_x);
insert into of_domain values ('y=>1'), (null);
create function shown(m member) returns text language sql stable as $$ select m.id::text $$;
create view shown_members as select m.shown from member m;
create function all_members() returns setof member language sql stable as $$ select * from public.member $$;
