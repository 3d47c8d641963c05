//! The plain stream between a source and the pipeline.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};

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
    Error::new(Kind::Stopped, "the pipeline stopped taking bytes")
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

/// A plain stream as `Read`, for blocking threads. A stream that was given up is an error, never an end.
pub struct Reader {
    receiver: PlainReceiver,
    current: Bytes,
    ended: bool,
}

impl Reader {
    /// Reads from the stream's next piece on.
    pub fn new(receiver: PlainReceiver) -> Self {
        Reader { receiver, current: Bytes::new(), ended: false }
    }

    /// What was not read yet, piece by piece, for a blocking thread; `None` when the stream was given up without an end.
    pub fn piece(&mut self) -> Option<Plain> {
        if !self.current.is_empty() {
            return Some(Plain::Data(std::mem::take(&mut self.current)));
        }
        if self.ended {
            return Some(Plain::End);
        }
        let next = self.receiver.blocking_next();
        self.ended = matches!(next, Some(Plain::End));
        next
    }
}

impl std::io::Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_next() {
                Some(Plain::Data(bytes)) => self.current = bytes,
                Some(Plain::Cut) => {}
                Some(Plain::End) => self.ended = true,
                None => return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the stream was given up before its end")),
            }
        }
        let take = self.current.len().min(out.len());
        out[..take].copy_from_slice(&self.current.split_to(take));
        Ok(take)
    }
}
