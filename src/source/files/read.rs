//! Looking into an archive without extracting it.

use std::io::{Read, Write};

use crate::error::{Context, Error, Kind, Result};
use crate::format::tar::{Entry, EntryKind, Sink, Walker};
use crate::source::files::sys::shown;

/// Calls `each` for every entry of an archive, in order. The archive is read and checked to its end.
pub fn list(reader: impl Read, each: impl FnMut(&Entry) -> Result<()>) -> Result<()> {
    struct List<F>(F);
    impl<F: FnMut(&Entry) -> Result<()>> Sink for List<F> {
        fn entry(&mut self, entry: &Entry) -> Result<()> {
            (self.0)(entry)
        }
    }
    walk(reader, &mut List(each))
}

/// Writes the content of one file of an archive to `out` and says whether the archive has it. A leading slash and `./` count for
/// nothing. Holes are written as zeros. The whole archive is read and checked; after an error `out` may hold a part.
///
/// A link or a folder has no content here: an error that names what it points to.
pub fn extract_path(reader: impl Read, path: &[u8], out: impl Write) -> Result<bool> {
    let mut find = Find { path: plain(path).to_vec(), out, left: None, found: false };
    walk(reader, &mut find)?;
    Ok(find.found)
}

fn walk(mut reader: impl Read, sink: &mut dyn Sink) -> Result<()> {
    let mut walker = Walker::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return walker.finish(),
            Ok(read) => walker.feed(&buffer[..read], sink)?,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context(|| "read a tar archive"),
        }
    }
}

fn plain(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/").or_else(|| path.strip_prefix(b"./")) {
        path = rest;
    }
    path.strip_suffix(b"/").unwrap_or(path)
}

struct Find<W> {
    path: Vec<u8>,
    out: W,
    /// Length and how much of it is written, while inside the file looked for.
    left: Option<(u64, u64)>,
    found: bool,
}

impl<W: Write> Find<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context(|| format!("write the content of {}", shown(&self.path)))
    }

    fn zeros(&mut self, mut count: u64) -> Result<()> {
        let zeros = [0u8; 64 << 10];
        while count > 0 {
            let some = count.min(zeros.len() as u64);
            self.write(&zeros[..some as usize])?;
            count -= some;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Find<W> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        if plain(&entry.path) != self.path {
            return Ok(());
        }
        let no = |what: String| Error::new(Kind::Usage, format!("{} is {what}", shown(&self.path)));
        match entry.kind {
            EntryKind::File => {
                self.found = true;
                self.left = Some((entry.size, 0));
                Ok(())
            }
            EntryKind::HardLink => {
                Err(no(format!("another name of {}", shown(&entry.link))).hint(format!("--path {}", shown(&entry.link))))
            }
            EntryKind::Symlink => Err(no(format!("a link to {}", shown(&entry.link)))),
            EntryKind::Dir => Err(no("a folder".into()).hint("name a file in it, or restore with --target")),
            EntryKind::Other(_) => Err(no("neither file nor folder".into())),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some((size, written)) = self.left else { return Ok(()) };
        self.zeros(offset.saturating_sub(written))?;
        self.write(bytes)?;
        self.left = Some((size, offset + bytes.len() as u64));
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        if let Some((size, written)) = self.left.take() {
            self.zeros(size.saturating_sub(written))?;
        }
        Ok(())
    }
}
