-- statistics on expressions, partial indexes, included columns and a clustered index that is made at the second try
-- people who tune: what is not there after a restore is missed weeks later
-- expect: whole
set check_function_bodies = off;
create function bucket(i int) returns int language sql immutable as $$ select bucket_inner(i) $$;
create function bucket_inner(i int) returns int language sql immutable as $$ select i / 10 $$;
create table event (id int primary key, kind int, at timestamptz, payload jsonb);
insert into event select i, i % 7, '2025-01-01', jsonb_build_object('i', i) from generate_series(1, 100) i;
create statistics event_stat (dependencies, mcv) on kind, (bucket(id)) from event;
alter statistics event_stat set statistics 200;
create index event_bucket on event (bucket(id)) include (kind) where bucket(id) > 2;
create index event_whole on event (bucket(id));
create unique index event_ident on event (id, kind);
alter table event cluster on event_whole;
alter table event alter kind set not null;
alter table event replica identity using index event_ident;
alter index event_bucket alter column 1 set statistics 500;
comment on statistics event_stat is 'of expressions';
