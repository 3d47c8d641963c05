//! The plain stream between a source and the pipeline.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// One piece of a plain stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Some bytes; best 64 KiB to 1 MiB at a time.
    Data(Bytes),
    /// The next byte starts a frame of its own: a hint that makes frames of equal content equal.
    Cut,
    /// The stream ended well: nothing is missing.
    End,
}

/// Pieces held between a source and the pipeline; with pieces of up to 1 MiB this bounds memory.
const DEPTH: usize = 4;

/// Where a source sends its plain bytes. Dropping it without the caller's end voids the stream.
#[derive(Clone)]
pub struct PlainSender(mpsc::Sender<Plain>);

/// The pipeline's end of a plain stream.
pub struct PlainReceiver(mpsc::Receiver<Plain>);

/// A bounded stream of plain bytes.
pub fn channel() -> (PlainSender, PlainReceiver) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    (PlainSender(sender), PlainReceiver(receiver))
}

fn gone() -> Error {
    Error::failed("the pipeline stopped taking bytes")
}

impl PlainSender {
    /// Sends bytes, waiting for room. An error means that the pipeline gave up; its own error says why.
    pub async fn data(&self, bytes: Bytes) -> Result<()> {
        self.0.send(Plain::Data(bytes)).await.map_err(|_| gone())
    }

    /// Like [`PlainSender::data`], for a blocking thread.
    pub fn blocking_data(&self, bytes: Bytes) -> Result<()> {
        self.0.blocking_send(Plain::Data(bytes)).map_err(|_| gone())
    }

    /// The next byte starts a frame of its own.
    pub fn blocking_cut(&self) -> Result<()> {
        self.0.blocking_send(Plain::Cut).map_err(|_| gone())
    }

    /// Ends the stream. For whoever runs the dump, once it has returned well.
    pub async fn end(self) -> Result<()> {
        self.0.send(Plain::End).await.map_err(|_| gone())
    }
}

impl PlainReceiver {
    /// The next piece, for the pipeline's blocking thread; `None` when the source gave up without an end.
    pub fn blocking_next(&mut self) -> Option<Plain> {
        self.0.blocking_recv()
    }

    /// The next piece.
    pub async fn next(&mut self) -> Option<Plain> {
        self.0.recv().await
    }
}
