//! Counting what was loaded, in the shape of the dump's facts.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;

use super::through_root::{self, Sum};
use crate::error::{Error, Kind, Result};
use crate::model::Facts;
use crate::source::postgres::catalog::{self, Table};
use crate::source::postgres::connect::{Connection, ident, pg_error};
use crate::source::postgres::names::is_raw;

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Rows of one table, without those of its children.
///
/// A query is planned with the table's indexes in view, and an expression in one of them may rely on a search_path that is empty here. COPY
/// plans nothing, but sends every row.
async fn rows(connection: &Connection, table: &Table) -> Result<u64, tokio_postgres::Error> {
    if is_raw(&table.schema) || is_raw(&table.name) {
        return rows_there(connection, table.oid).await;
    }
    let name = format!("{}.{}", ident(&table.schema), ident(&table.name));
    if let Ok(row) = connection.query_one(&format!("select count(*) from only {name}"), &[]).await {
        return Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0));
    }
    connection.batch_execute(&format!("ROLLBACK; {BEGIN}")).await?;
    let mut stream = Box::pin(connection.copy_out(&format!("COPY {name} TO STDOUT")).await?);
    let mut rows = 0;
    while let Some(piece) = stream.try_next().await? {
        // A newline in a value is written as \n.
        rows += memchr::memchr_iter(b'\n', &piece).count() as u64;
    }
    Ok(rows)
}

/// Exact rows of every table that the dump counted, at one instant. Left out are tables of extensions, of which a dump holds a part only.
/// A table of the dump that is not there is an error. Totals are given where every table could be counted. Partitions that were loaded
/// through the root of their tree are compared here, by their sum: each alone may hold other rows than it did, and is left out.
pub(super) async fn count(connection: &mut Connection, dumped: &Facts, facts: &mut Facts) -> Result<()> {
    let asked = |e: tokio_postgres::Error| pg_error("count what was loaded", &e);
    connection.batch_execute(BEGIN).await.map_err(asked)?;
    let objects = connection.query_one("select count(*) from pg_largeobject_metadata", &[]).await.map_err(asked)?;
    facts.add("large_objects", u64::try_from(objects.get::<_, i64>(0)).unwrap_or(0));
    let extension_tables = catalog::tables_of_extensions(connection).await?;
    let tables = catalog::tables(connection).await?;
    // Where the dump counted no rows there is nothing to compare.
    let through_root = if dumped.per_name.is_empty() { BTreeMap::new() } else { through_root::leaves(connection).await? };
    let (mut sums, mut summed) = (BTreeMap::<String, Sum>::new(), BTreeSet::new());
    // Where names make one key of two tables the dump's count is their sum too.
    for table in tables {
        let key = &table.key;
        let (in_dump, root) = (dumped.per_name.get(key), through_root.get(&table.oid));
        // A partition whose rows were not dumped may have got some of the others' by now.
        if (in_dump.is_none() && root.is_none()) || extension_tables.contains(key) {
            continue;
        }
        let rows = rows(connection, &table).await.map_err(|e| pg_error(format!("count the rows of {key}"), &e))?;
        match root {
            Some(root) => {
                let sum = sums.entry(root.clone()).or_default();
                sum.found += rows;
                // Once for a key that two tables share.
                if let Some(dumped) = in_dump.filter(|_| summed.insert(table.key)) {
                    sum.dumped += dumped;
                }
            }
            None => *facts.per_name.entry(table.key).or_insert(0) += rows,
        }
    }
    connection.batch_execute("COMMIT").await.map_err(asked)?;
    let there = |key: &String| facts.per_name.contains_key(key) || summed.contains(key);
    let lost = dumped.per_name.keys().find(|key| !there(key) && !extension_tables.contains(*key));
    if let Some(lost) = lost {
        return Err(Error::new(Kind::Verify, format!("table {lost} of the dump is not in the loaded database")));
    }
    let wrong = through_root::wrong(&sums);
    if !wrong.is_empty() {
        return Err(Error::new(Kind::Verify, format!("what was loaded is not what was dumped: {}", wrong.join("; "))));
    }
    if dumped.per_name.len() == facts.per_name.len() + summed.len() && !dumped.per_name.is_empty() {
        facts.totals.insert("rows".into(), facts.per_name.values().sum::<u64>() + sums.values().map(|sum| sum.found).sum::<u64>());
        // As many as the dump has: each of them was found.
        facts.totals.insert("tables".into(), dumped.totals.get("tables").copied().unwrap_or(dumped.per_name.len() as u64));
    }
    Ok(())
}

/// The same of a table whose name is no UTF-8: the server alone can name it.
async fn rows_there(connection: &Connection, table: u32) -> Result<u64, tokio_postgres::Error> {
    const PLACE: &str = "drctl.rows";
    let counting = format!(
        "DO $$ DECLARE n bigint; BEGIN EXECUTE format('select count(*) from only %s', {table}::regclass) INTO n; \
         PERFORM set_config('{PLACE}', n::text, true); END $$"
    );
    connection.batch_execute(&counting).await?;
    let row = connection.query_one(&format!("select current_setting('{PLACE}')::bigint"), &[]).await?;
    Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}
