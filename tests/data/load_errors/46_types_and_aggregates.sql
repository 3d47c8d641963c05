-- range types, enums, composite types, aggregates, collations, typed tables, procedures, transforms of rows
-- people who use all of PostgreSQL: plain loads are near it
-- expect: whole
set check_function_bodies = off;
create type mood as enum ('low', 'high');
alter type mood add value 'middle' before 'high';
create function gap(a float8, b float8) returns float8 language sql immutable as $$ select a - b $$;
create type floats as range (subtype = float8, subtype_diff = gap);
create type pair as (a int, m mood);
create collation numeric_order (provider = icu, locale = 'en-u-kn-true');
create function keep_last(a anyelement, b anyelement) returns anyelement language sql immutable as $$ select coalesce(b, a) $$;
create aggregate last_of (anyelement) (sfunc = keep_last, stype = anyelement);
create table typed of pair (primary key (a));
insert into typed values (1, 'middle'), (2, 'high');
create table many (r floats, p pair[], t text collate numeric_order, x xml, bits bit(3), net inet);
insert into many values ('[1,3)', array[(1, 'low')::pair], 'a10', '<a/>', b'101', '10.0.0.1/8');
create index many_r on many using gist (r);
create procedure tidy_up() language plpgsql as $$ begin delete from typed where a < 0; end $$;
create view last_mood as select last_of(m) from typed;
create function loop_of(i int) returns int language sql immutable as $$ select inner_of(i) $$;
create function inner_of(i int) returns int language sql immutable as $$ select i $$;
create table hash_parted (m mood, i int) partition by hash (i);
create table hash_0 partition of hash_parted for values with (modulus 2, remainder 0);
create table hash_1 partition of hash_parted for values with (modulus 2, remainder 1);
insert into hash_parted select 'low', i from generate_series(1, 20) i;
create index hash_loop on hash_parted (loop_of(i));
