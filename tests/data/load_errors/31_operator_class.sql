-- an operator class of one's own, whose comparing function calls another without a schema
-- people who sort versions or house numbers
-- expect: whole
create type version as (major int, minor int);
create function weight(v version) returns int language sql immutable as $$ select v.major * 1000 + v.minor $$;
create function version_cmp(a version, b version) returns int language plpgsql immutable as $$ begin return sign(weight(a) - weight(b)); end $$;
create function version_lt(a version, b version) returns boolean language plpgsql immutable as $$ begin return weight(a) < weight(b); end $$;
create function version_eq(a version, b version) returns boolean language plpgsql immutable as $$ begin return weight(a) = weight(b); end $$;
create operator <<< (leftarg = version, rightarg = version, function = version_lt);
create operator === (leftarg = version, rightarg = version, function = version_eq);
create operator class version_ops for type version using btree as operator 1 <<<, operator 3 ===, function 1 version_cmp(version, version);
create table release (id int primary key, v version);
insert into release values (1, (1, 2)), (2, (1, 1)), (3, (0, 9));
create index release_v on release (v version_ops);
create unique index release_u on release (v version_ops, id);
