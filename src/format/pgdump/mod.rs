//! Walker of `pg_dump -Fc` archives, versions 1.12 to 1.16 (PostgreSQL 9.0 to 18).
//!
//! ```text
//! "PGDMP" major minor revision intsize offsize format      bytes
//! compression                                              byte since 1.15, int before
//! second minute hour day month year dst                    ints
//! database, server version, pg_dump version                strings
//! number of entries                                        int, then the entries (see `toc`)
//! { 1 id chunk* 0 | 3 id { oid chunk* 0 }* 0 }*            data: of a table | of large objects; chunk = length, bytes
//! ```
//! An int is a sign byte (1: negative) and `intsize` bytes, least first; a string is its length (negative: none) and its bytes.
//! Written to a pipe the archive holds no offsets, so it is walked from its start to its end; nothing marks that end but that
//! every entry with data has had its block. Facts of the layout: PostgreSQL's `src/bin/pg_dump/pg_backup_archiver.c` and
//! `pg_backup_custom.c`, and archives made here.
//!
//! The archive is walked, not interpreted: an SQL text in it is passed over.

mod archive;
mod head;
mod scalar;
mod toc;
mod walk;

pub use archive::{ArchiveReader, Section, TocEntry};
pub use head::Head;
pub use toc::{TocSummary, table_key};
pub use walk::PgDumpInspector;

#[cfg(test)]
mod tests;
