//! Partitions whose rows a dump loads through the root of their tree.
//!
//! A hash partition by an enum holds other rows after a restore: the hash is that of the enum value's oid, which is new then. pg_dump
//! (`forcePartitionRootLoad` in its `pg_dump.c`) therefore names the root in the COPY of every partition below such a table, however deep,
//! and the rows find their partitions anew. Their sum stays what it was; the count of one partition says nothing.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::source::postgres::connect::{Connection, ident, pg_error};
use crate::source::postgres::names::Text;

/// Asked of the loaded database: a table somewhere above is partitioned by the hash of an enum, which is pg_dump's own rule, or of what may
/// hold one: an array, a composite, a range. There drctl has pg_dump load all partitions through their root. It is told by the class of operators,
/// not by the key's type. Works from PostgreSQL 10 on, which knows no `pg_partition_root()`.
const THROUGH_ROOT: &str = "
with recursive by_enum as (
    select p.partrelid from pg_catalog.pg_partitioned_table p
    where p.partstrat = 'h' and exists (select from pg_catalog.pg_opclass c join pg_catalog.pg_am a on a.oid = c.opcmethod
        where c.oid = any (p.partclass) and a.amname = 'hash'
          and (c.opcname = 'enum_ops' and c.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace
            or c.opcintype in ('anyarray'::pg_catalog.regtype, 'record'::pg_catalog.regtype, 'anyrange'::pg_catalog.regtype)))),
  up (leaf, at) as (
    select c.oid, c.oid from pg_catalog.pg_class c where c.relispartition and c.relkind = 'r'
    union all
    select u.leaf, i.inhparent from up u join pg_catalog.pg_class c on c.oid = u.at and c.relispartition
      join pg_catalog.pg_inherits i on i.inhrelid = u.at)
select u.leaf, n.nspname::text, r.relname::text
from up u join pg_catalog.pg_class r on r.oid = u.at and not r.relispartition join pg_catalog.pg_namespace n on n.oid = r.relnamespace
where exists (select from up b join by_enum e on e.partrelid = b.at where b.leaf = u.leaf)";

/// Roots of such leaves, by the oid of the leaf; a root as SQL names it.
pub(super) async fn leaves(connection: &Connection) -> Result<BTreeMap<u32, String>> {
    let rows = connection.query(THROUGH_ROOT, &[]).await.map_err(|e| pg_error("look for partitions by the hash of an enum", &e))?;
    let root = |Text(schema): Text, Text(table): Text| format!("{}.{}", ident(&schema), ident(&table));
    Ok(rows.iter().map(|row| (row.get(0), root(row.get(1), row.get(2)))).collect())
}

/// Rows below one root: in the dump, and found.
#[derive(Clone, Copy, Default)]
pub(super) struct Sum {
    pub(super) dumped: u64,
    pub(super) found: u64,
}

/// What is wrong with the sums, a line each.
pub(super) fn wrong(sums: &BTreeMap<String, Sum>) -> Vec<String> {
    let differs = sums.iter().filter(|(_, sum)| sum.dumped != sum.found);
    differs.map(|(root, sum)| format!("the partitions of {root} have {} rows together, the dump had {}", sum.found, sum.dumped)).collect()
}
