-- a CHECK whose function reads, by its full name, a table that is loaded after it
-- people whose restores work or fail by the names of their tables
-- expect: whole
create table zones (zone int primary key, open boolean not null);
insert into zones select i, true from generate_series(1, 20) i;
create function zone_is_open(z int) returns boolean language plpgsql stable as $$ begin
  return coalesce((select open from public.zones where zone = z), false); end $$;
create table booking (id int primary key, zone int, constraint only_open check (zone_is_open(zone)));
insert into booking select i, i % 20 + 1 from generate_series(1, 100) i;
