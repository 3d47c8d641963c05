//! A child whose standard input and output are a connection: `ssh -W`.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as Waker, Poll};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::error::{Context, Error, Result};
use crate::process::Command;
use crate::process::child::{Child, Flow};
use crate::process::redact::Redactor;
use crate::process::stderr::{self, Tail};

/// What goes in is the child's standard input, what comes out its standard output. Dropped, the child is killed with its group.
///
/// The end of the stream says nothing of why; [`Said`] does.
pub struct Duplex {
    stream: UnixStream,
    _child: Child,
    said: Said,
}

/// What such a child says on standard error; outlives it.
#[derive(Clone)]
pub struct Said {
    tail: Arc<Mutex<Tail>>,
    ended: watch::Receiver<bool>,
}

impl Said {
    /// The last lines, without secrets. Waits up to `within` for the child to have said all: it closes the connection first.
    pub async fn lines(&self, within: Duration) -> Vec<String> {
        let mut ended = self.ended.clone();
        // An error means that the thread that drains is gone: nothing more will come.
        let _ = tokio::time::timeout(within, ended.wait_for(|ended| *ended)).await;
        self.tail.lock().unwrap_or_else(|p| p.into_inner()).lines()
    }
}

impl Command {
    /// Starts it with a connection as its standard input and output.
    pub async fn duplex(self) -> Result<Duplex> {
        let mut child = Child::spawn(&self, Flow::Both).await?;
        let (Some(stream), Some(errors)) = (child.stream.take(), child.stderr.take()) else {
            return Err(Error::failed(format!("{} has no streams", self.what)));
        };
        let what = || format!("set up the streams of {}", self.what);
        let stream = std::os::unix::net::UnixStream::from(OwnedFd::from(stream));
        stream.set_nonblocking(true).context(what)?;
        let stream = UnixStream::from_std(stream).context(what)?;
        let tail = Arc::new(Mutex::new(Tail::new(Redactor::new(&self.secrets), self.keep_stderr)));
        let (done, ended) = watch::channel(false);
        let kept = tail.clone();
        let draining = move || {
            stderr::drain(errors, &kept, None);
            let _ = done.send(true);
        };
        thread::Builder::new().name("stderr".into()).spawn(draining).context(|| "start a thread")?;
        Ok(Duplex { stream, _child: child, said: Said { tail, ended } })
    }
}

impl Duplex {
    /// What the child says.
    pub fn said(&self) -> Said {
        self.said.clone()
    }
}

impl AsyncRead for Duplex {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(waker, buffer)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(waker, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(waker)
    }
}
