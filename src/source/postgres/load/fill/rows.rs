//! Copying the rows of tables that pg_restore could not: out of the set's stream, which is read once more for it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::SinkExt as _;
use tokio::sync::mpsc;

use super::acting::Way;
use super::retry::{Pending, Retry, Tried, reason};
use crate::error::{Error, Result};
use crate::format::pgdump::ArchiveReader;
use crate::pipeline::plain::{PlainReceiver, Reader};

/// Bytes sent at a time; a row is a piece of its own in the archive.
const BLOCK: usize = 128 * 1024;
/// Blocks between the thread that reads and the connection that copies.
const DEPTH: usize = 4;

/// What the archive holds of the tables that are wanted.
enum Piece {
    Begin(i64),
    Rows(Bytes),
    End,
}

/// Walks the archive and sends the rows of these entries; on a thread that may block. Reads to the stream's end, which proves the stream.
fn send(input: PlainReceiver, wanted: &BTreeSet<i64>, out: &mpsc::Sender<Piece>) -> Result<()> {
    let gone = || Error::failed("nobody copies the rows any more");
    let mut archive = ArchiveReader::open(Reader::new(input))?;
    while archive.entry()?.is_some() {}
    while let Some(id) = archive.block()? {
        if !wanted.contains(&id) {
            archive.pass()?;
            continue;
        }
        out.blocking_send(Piece::Begin(id)).map_err(|_| gone())?;
        let mut held = Vec::with_capacity(BLOCK);
        while archive.piece(&mut held)? {
            if held.len() >= BLOCK {
                out.blocking_send(Piece::Rows(Bytes::from(std::mem::take(&mut held)))).map_err(|_| gone())?;
            }
        }
        if !held.is_empty() {
            out.blocking_send(Piece::Rows(Bytes::from(held))).map_err(|_| gone())?;
        }
        out.blocking_send(Piece::End).map_err(|_| gone())?;
    }
    Ok(())
}

/// One way to copy rows.
#[derive(Clone, Debug)]
struct RowsWay {
    way: Way,
    /// Without the table's CHECK constraints, which are put back once all rows are there.
    unchecked: bool,
}

/// The ways of [`Retry::ways_for_rows`]; the last resort is to leave the table's checks away.
fn rows_ways(retry: &Retry<'_>, one: &Pending) -> Vec<RowsWay> {
    let mut ways: Vec<RowsWay> = retry.ways_for_rows(&one.entry).into_iter().map(|way| RowsWay { way, unchecked: false }).collect();
    ways.push(RowsWay { way: Way::Plain, unchecked: true });
    ways
}

/// How many ways there are for rows.
pub(super) fn ways(retry: &Retry<'_>, one: &Pending) -> usize {
    rows_ways(retry, one).len()
}

/// One pass over the archive: each table whose rows are pending is tried in the way it is at. What was copied leaves the list.
///
/// `at` holds how many ways were tried of each. Returns whether anything was copied.
pub(super) async fn pass(
    retry: &mut Retry<'_>,
    input: PlainReceiver,
    pending: &mut Vec<Pending>,
    at: &BTreeMap<i64, usize>,
) -> Result<bool> {
    let mut ways: BTreeMap<i64, RowsWay> = BTreeMap::new();
    for one in pending.iter().filter(|one| one.entry.is_rows() && !one.entry.copy.is_empty()) {
        let tried = at.get(&one.entry.id).copied().unwrap_or(0);
        if let Some(way) = rows_ways(retry, one).into_iter().nth(tried) {
            ways.insert(one.entry.id, way);
        }
    }
    let wanted: BTreeSet<i64> = ways.keys().copied().collect();
    let (out, mut pieces) = mpsc::channel(DEPTH);
    let reading = tokio::task::spawn_blocking(move || send(input, &wanted, &out));
    let before = pending.iter().filter(|one| one.entry.is_rows()).count();
    let mut hopeless = None;
    while let Some(piece) = pieces.recv().await {
        let Piece::Begin(id) = piece else { continue };
        let (Some(place), Some(way)) = (pending.iter().position(|one| one.entry.id == id), ways.get(&id)) else { continue };
        match copy(retry, &pending[place], way, &mut pieces).await {
            (Tried::Made, back) => {
                pending.remove(place);
                // Those of parts come before those of the whole, which would make them too.
                pending.splice(0..0, back);
            }
            (Tried::Failed(error), _) => pending[place].reason = reason(&error),
            (Tried::Hopeless(error), _) => {
                hopeless = Some(error);
                break;
            }
        }
    }
    drop(pieces);
    let read = reading.await.map_err(|e| Error::failed("a thread that read rows broke down").because(e))?;
    match hopeless {
        Some(error) => Err(error),
        None => read.map(|()| pending.iter().filter(|one| one.entry.is_rows()).count() < before),
    }
}

/// Copies the rows of one table, up to its [`Piece::End`]. With what puts its checks back, where they were taken away.
async fn copy(retry: &mut Retry<'_>, one: &Pending, way: &RowsWay, pieces: &mut mpsc::Receiver<Piece>) -> (Tried, Vec<Pending>) {
    let mut back = Vec::new();
    let result = copy_rows(retry, one, way, pieces, &mut back).await;
    (retry.outcome(result).await, back)
}

async fn copy_rows(
    retry: &mut Retry<'_>,
    one: &Pending,
    way: &RowsWay,
    pieces: &mut mpsc::Receiver<Piece>,
    back: &mut Vec<Pending>,
) -> std::result::Result<(), tokio_postgres::Error> {
    let entry = &one.entry;
    // Rows that other leaves sent here through their root say nothing of this COPY.
    let through_root = entry.definition.contains("load via partition root");
    if !through_root && !retry.is_empty(entry).await? {
        return Ok(());
    }
    retry.begin(entry, &way.way).await?;
    if way.unchecked {
        *back = retry.uncheck(entry).await?;
    }
    {
        let mut sink = Box::pin(retry.connection.copy_in::<_, Bytes>(entry.copy.trim()).await?);
        loop {
            match pieces.recv().await {
                Some(Piece::Rows(rows)) => sink.send(rows).await?,
                // Dropped, the sink voids the COPY; the thread that reads says why it broke off.
                None => return Ok(()),
                Some(Piece::End | Piece::Begin(_)) => break,
            }
        }
        sink.as_mut().finish().await?;
    }
    retry.end(entry, &way.way).await
}
