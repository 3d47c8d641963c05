-- All that people made in a database, one JSON array a line: what it is, its name, what it is like; for each table its rows as count and hash.
-- It only reads, so that event triggers that forbid DDL do not mind. Read by tests/postgres_load_errors.rs.
set statement_timeout = 0;
set lock_timeout = 0;
set search_path = '';
set timezone = 'UTC';
set datestyle = 'ISO';
with
names as (
  select oid as ns, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
),
member as (
  select classid, objid from pg_depend where deptype = 'e'
),
rel as (
  select c.*, c.oid::regclass::text as name, exists (select from member m where m.classid = 'pg_class'::regclass and m.objid = c.oid) as extension
  from pg_class c join names n on n.ns = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c', 'i', 'I')
),
said as (
  select classoid, objoid, objsubid, description from pg_description
),
found (kind, name, what) as (
  select 'schema', quote_ident(n.nspname), jsonb_build_object('owner', nspowner::regrole::text, 'comment', obj_description(n.oid, 'pg_namespace'))
  from pg_namespace n join names on ns = n.oid
  union all
  select 'extension', extname::text, jsonb_build_object('schema', extnamespace::regnamespace::text, 'version', extversion, 'comment', obj_description(oid, 'pg_extension'))
  from pg_extension
  union all
  select 'relation', r.name, jsonb_build_object('kind', relkind, 'owner', relowner::regrole::text, 'persistence', relpersistence,
    'options', reloptions, 'replident', relreplident, 'rls', relrowsecurity, 'force_rls', relforcerowsecurity, 'populated', relispopulated,
    'tablespace', (select spcname from pg_tablespace s where s.oid = reltablespace), 'method', (select amname from pg_am a where a.oid = relam),
    'bound', pg_get_expr(relpartbound, r.oid), 'of', case when reloftype <> 0 then reloftype::regtype::text end,
    'parents', (select jsonb_agg(inhparent::regclass::text order by inhseqno) from pg_inherits where inhrelid = r.oid and relkind not in ('i', 'I')),
    'key', case when relkind = 'p' then pg_get_partkeydef(r.oid) end,
    'view', case when relkind in ('v', 'm') then pg_get_viewdef(r.oid) end, 'comment', obj_description(r.oid, 'pg_class'))
  from rel r
  union all
  select 'index', r.name, jsonb_build_object('def', pg_get_indexdef(r.oid), 'valid', indisvalid, 'ready', indisready, 'clustered', indisclustered,
    'replident', indisreplident, 'of', (select inhparent::regclass::text from pg_inherits where inhrelid = r.oid),
    'targets', (select jsonb_agg(attstattarget order by attnum) from pg_attribute where attrelid = r.oid))
  from rel r join pg_index on indexrelid = r.oid
  union all
  select 'column', r.name || '.' || quote_ident(attname), jsonb_build_object('type', format_type(atttypid, atttypmod), 'not_null', attnotnull,
    'default', pg_get_expr(adbin, adrelid), 'identity', attidentity, 'generated', attgenerated, 'collation', attcollation::regcollation::text,
    'target', attstattarget, 'storage', attstorage, 'compression', attcompression, 'options', attoptions, 'fdw', (select jsonb_agg(o order by o) from unnest(attfdwoptions) o), 'local', attislocal,
    'inherited', attinhcount, 'place', row_number() over (partition by attrelid order by attnum), 'comment', col_description(r.oid, attnum))
  from rel r join pg_attribute on attrelid = r.oid and attnum > 0 and not attisdropped
  left join pg_attrdef on adrelid = attrelid and adnum = attnum where relkind not in ('i', 'I', 'S')
  union all
  select 'constraint', coalesce(nullif(conrelid, 0)::regclass::text, nullif(contypid, 0)::regtype::text) || '.' || quote_ident(conname),
    jsonb_build_object('def', pg_get_constraintdef(c.oid), 'valid', convalidated, 'local', conislocal, 'inherited', coninhcount,
    'no_inherit', connoinherit and contype = 'c', 'comment', obj_description(c.oid, 'pg_constraint'))
  from pg_constraint c join names on ns = connamespace
  union all
  select 'function', p.oid::regprocedure::text, jsonb_build_object('def', case when prokind <> 'a' then pg_get_functiondef(p.oid) else
    (select jsonb_build_array(aggtransfn::regproc, aggfinalfn::regproc, aggtranstype::regtype, agginitval)::text from pg_aggregate where aggfnoid = p.oid) end,
    'owner', proowner::regrole::text, 'comment', obj_description(p.oid, 'pg_proc'))
  from pg_proc p join names on ns = pronamespace
  where not exists (select from member m where m.classid = 'pg_proc'::regclass and m.objid = p.oid)
  union all
  select 'trigger', tgrelid::regclass::text || '.' || quote_ident(tgname), jsonb_build_object('def', pg_get_triggerdef(t.oid), 'enabled', tgenabled,
    'comment', obj_description(t.oid, 'pg_trigger'))
  from pg_trigger t where not tgisinternal
  union all
  select 'policy', polrelid::regclass::text || '.' || quote_ident(polname), jsonb_build_object('for', polcmd, 'permissive', polpermissive,
    'roles', (select jsonb_agg(case when o = 0 then 'public' else o::regrole::text end order by o::regrole::text) from unnest(polroles) o),
    'using', pg_get_expr(polqual, polrelid), 'check', pg_get_expr(polwithcheck, polrelid))
  from pg_policy
  union all
  select 'type', t.oid::regtype::text, jsonb_build_object('kind', typtype, 'owner', typowner::regrole::text, 'base', format_type(nullif(typbasetype, 0), typtypmod),
    'not_null', typnotnull, 'default', typdefault, 'labels', (select jsonb_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = t.oid),
    'range', (select jsonb_build_array(rngsubtype::regtype, rngcanonical::regproc, rngsubdiff::regproc, rngmultitypid::regtype) from pg_range where rngtypid = t.oid),
    'comment', obj_description(t.oid, 'pg_type'))
  from pg_type t join names on ns = typnamespace
  where typtype <> 'p' and typelem = 0 and (typrelid = 0 or (select relkind from pg_class c where c.oid = typrelid) = 'c')
  union all
  select 'rule', ev_class::regclass::text || '.' || quote_ident(rulename), jsonb_build_object('def', pg_get_ruledef(r.oid), 'enabled', ev_enabled)
  from pg_rewrite r join rel on rel.oid = ev_class
  union all
  select 'event trigger', quote_ident(evtname), jsonb_build_object('event', evtevent, 'function', evtfoid::regproc::text, 'owner', evtowner::regrole::text,
    'enabled', evtenabled, 'tags', evttags, 'comment', obj_description(oid, 'pg_event_trigger'))
  from pg_event_trigger
  union all
  select 'statistics', format('%I.%I', nspname, stxname), jsonb_build_object('def', pg_get_statisticsobjdef(s.oid), 'target', stxstattarget,
    'owner', stxowner::regrole::text, 'comment', obj_description(s.oid, 'pg_statistic_ext'))
  from pg_statistic_ext s join names on ns = stxnamespace
  union all
  select 'sequence', r.name, to_jsonb(s) - 'seqrelid' || jsonb_build_object('seqtypid', seqtypid::regtype::text,
    'owned', (select refobjid::regclass::text || '.' || refobjsubid from pg_depend where classid = 'pg_class'::regclass and objid = r.oid and deptype in ('a', 'i')
      and refclassid = 'pg_class'::regclass and refobjsubid > 0 limit 1),
    'state', (xpath('/row/h/text()', query_to_xml(format('select last_value || '' '' || is_called as h from %s', r.name), false, true, '')))[1]::text)
  from rel r join pg_sequence s on seqrelid = r.oid
  union all
  select 'right', a.kind || ' ' || a.name, (select jsonb_agg(r order by r) from (
    select format('%s %s%s by %s', case when grantee = 0 then 'public' else grantee::regrole::text end, privilege_type,
      case when is_grantable then '*' else '' end, grantor::regrole) as r
    from aclexplode(a.acl)) rights)
  from (
    select 'schema' as kind, quote_ident(n.nspname) as name, coalesce(nspacl, acldefault('n', nspowner)) as acl from pg_namespace n join names on ns = n.oid
    union all select 'relation', r.name, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) from rel r where relkind not in ('i', 'I', 'c')
    union all select 'column', r.name || '.' || quote_ident(attname), attacl from rel r join pg_attribute on attrelid = r.oid where attacl is not null
    union all select 'function', p.oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) from pg_proc p join names on ns = pronamespace
    union all select 'type', t.oid::regtype::text, coalesce(typacl, acldefault('T', typowner)) from pg_type t join names on ns = typnamespace where typelem = 0
    union all select 'wrapper', fdwname::text, coalesce(fdwacl, acldefault('F', fdwowner)) from pg_foreign_data_wrapper
    union all select 'server', srvname::text, coalesce(srvacl, acldefault('S', srvowner)) from pg_foreign_server
    union all select 'language', lanname::text, coalesce(lanacl, acldefault('l', lanowner)) from pg_language
    union all select 'large object', l.oid::text, coalesce(lomacl, acldefault('L', lomowner)) from pg_largeobject_metadata l
    union all select 'what is made', format('%s by %s in %s', defaclobjtype, defaclrole::regrole, coalesce(nullif(defaclnamespace, 0)::regnamespace::text, 'all')), defaclacl from pg_default_acl
  ) a
  union all
  select 'publication', quote_ident(pubname), to_jsonb(p) - 'oid' - 'pubname' || jsonb_build_object('pubowner', pubowner::regrole::text,
    'tables', (select jsonb_agg(jsonb_build_array(prrelid::regclass::text, pg_get_expr(prqual, prrelid), prattrs::text) order by prrelid::regclass::text)
      from pg_publication_rel where prpubid = p.oid),
    'schemas', (select jsonb_agg(pnnspid::regnamespace::text order by pnnspid::regnamespace::text) from pg_publication_namespace where pnpubid = p.oid))
  from pg_publication p
  union all
  select 'subscription', quote_ident(subname), to_jsonb(s) - 'oid' - 'subdbid' - 'subname' || jsonb_build_object('subowner', subowner::regrole::text)
  from pg_subscription s where subdbid = (select oid from pg_database where datname = current_database())
  union all
  select 'server', quote_ident(srvname), jsonb_build_object('owner', srvowner::regrole::text, 'options', (select jsonb_agg(o order by o) from unnest(srvoptions) o), 'wrapper', fdwname)
  from pg_foreign_server s join pg_foreign_data_wrapper w on w.oid = srvfdw
  union all
  select 'user mapping', srvname || ' ' || usename, (select jsonb_agg(o order by o) from unnest(umoptions) o) from pg_user_mappings
  union all
  select 'foreign table', ftrelid::regclass::text, jsonb_build_object('server', srvname, 'options', (select jsonb_agg(o order by o) from unnest(ftoptions) o)) from pg_foreign_table join pg_foreign_server s on s.oid = ftserver
  union all
  select 'cast', castsource::regtype || ' ' || casttarget::regtype, jsonb_build_object('function', castfunc::regprocedure::text, 'context', castcontext, 'method', castmethod)
  from pg_cast c where c.oid >= 16384
  union all
  select 'operator', o.oid::regoperator::text, jsonb_build_object('function', oprcode::regprocedure::text, 'owner', oprowner::regrole::text, 'commutator', oprcom::regoperator::text,
    'negator', oprnegate::regoperator::text, 'rest', oprrest::regproc::text, 'join', oprjoin::regproc::text)
  from pg_operator o join names on ns = oprnamespace
  union all
  select 'operator class', pg_describe_object('pg_opclass'::regclass, o.oid, 0), jsonb_build_object('owner', opcowner::regrole::text, 'default', opcdefault,
    'type', opcintype::regtype::text, 'key', opckeytype::regtype::text)
  from pg_opclass o join names on ns = opcnamespace
  union all
  select 'operator family', pg_describe_object('pg_opfamily'::regclass, o.oid, 0), jsonb_build_object('owner', opfowner::regrole::text,
    'operators', (select jsonb_agg(pg_describe_object('pg_amop'::regclass, a.oid, 0) order by pg_describe_object('pg_amop'::regclass, a.oid, 0)) from pg_amop a where amopfamily = o.oid),
    'functions', (select jsonb_agg(pg_describe_object('pg_amproc'::regclass, a.oid, 0) order by pg_describe_object('pg_amproc'::regclass, a.oid, 0)) from pg_amproc a where amprocfamily = o.oid))
  from pg_opfamily o join names on ns = opfnamespace
  union all
  select 'collation', c.oid::regcollation::text, jsonb_build_object('owner', collowner::regrole::text, 'provider', collprovider, 'icu', coalesce(to_jsonb(c) ->> 'colliculocale', to_jsonb(c) ->> 'colllocale'), 'collate', collcollate)
  from pg_collation c join names on ns = collnamespace
  union all
  select 'text search', c.oid::regconfig::text, jsonb_build_object('owner', cfgowner::regrole::text,
    'map', (select jsonb_agg(jsonb_build_array(maptokentype, mapseqno, mapdict::regdictionary::text) order by maptokentype, mapseqno) from pg_ts_config_map where mapcfg = c.oid))
  from pg_ts_config c join names on ns = cfgnamespace
  union all
  select 'large object', l.oid::text, jsonb_build_object('owner', lomowner::regrole::text, 'content', md5(lo_get(l.oid)), 'comment', obj_description(l.oid, 'pg_largeobject'))
  from pg_largeobject_metadata l
  union all
  select 'setting', coalesce(nullif(setrole, 0)::regrole::text, 'all'), to_jsonb(setconfig)
  from pg_db_role_setting where setdatabase = (select oid from pg_database where datname = current_database())
)
select json_build_array(kind, name, what) from found order by kind, name;

-- Planning a query makes functions of indexes part of it, which find each other by this path alone.
select set_config('search_path', (select string_agg(quote_ident(nspname), ', ' order by nspname) from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema'), false) as path \gset
select json_build_array('rows', name, case when relispopulated then (xpath('/row/h/text()', query_to_xml(format('select count(*) || '' '' ||
  coalesce(md5(string_agg(h, '''' order by h)), ''-'') as h from (select md5(le_row__::text) as h from only %s le_row__) q', name), false, true, '')))[1]::text end)
from (select format('%I.%I', nspname, relname) as name, relispopulated from pg_class join pg_namespace n on n.oid = relnamespace
  where relkind in ('r', 'm') and nspname !~ '^pg_' and nspname <> 'information_schema') r order by name;
