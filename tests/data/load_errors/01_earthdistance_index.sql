-- an index over ll_to_earth(), whose own body calls cube() and earth() without their schema
-- people whose car and photo loggers look for the places near a point
-- expect: whole
create extension cube;
create extension earthdistance;
create table photo (id int primary key, la float8, lo float8);
insert into photo values (1, 60, 25), (2, 52.5, 13.4), (3, null, null);
create index photo_place on photo using gist (ll_to_earth(la, lo));
comment on index photo_place is 'near a point';
