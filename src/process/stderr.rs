//! What is kept of a child's standard error: the last lines, bounded, without secrets.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use crate::process::command::WatchStderr;
use crate::process::{KeepLine, Redactor};

/// Lines kept (FAULTS 26).
const LINES: usize = 20;
/// Bytes kept of one line. pg_dump's longest usual lines name a query; a COPY of a wide table has a few hundred bytes.
const LINE_BYTES: usize = 800;

/// The last lines.
pub(super) struct Tail {
    lines: VecDeque<Vec<u8>>,
    open: Vec<u8>,
    redactor: Redactor,
    wanted: Option<KeepLine>,
    last_wanted: bool,
}

impl Tail {
    pub(super) fn new(redactor: Redactor, wanted: Option<KeepLine>) -> Self {
        Tail { lines: VecDeque::new(), open: Vec::new(), redactor, wanted, last_wanted: true }
    }

    /// Bytes kept of a line before redaction: enough to see a secret that begins before the cut as a whole.
    fn room(&self) -> usize {
        LINE_BYTES + self.redactor.longest()
    }

    fn push(&mut self, bytes: &[u8]) {
        // Lines of a flood that cannot be among the last ones are not looked at.
        let mut start = 0;
        if self.wanted.is_none()
            && bytes.len() > LINES * LINE_BYTES
            && let Some(at) = memchr::memrchr_iter(b'\n', bytes).nth(LINES)
        {
            self.open.clear();
            start = at + 1;
        }
        for piece in bytes[start..].split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = self.room().saturating_sub(self.open.len());
            self.open.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                let line = std::mem::take(&mut self.open);
                self.keep(line);
            }
        }
    }

    fn keep(&mut self, mut line: Vec<u8>) {
        // ssh and docker end lines as terminals want them.
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        self.last_wanted = self.wants(&line);
        if !self.last_wanted {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn wants(&self, line: &[u8]) -> bool {
        self.wanted.is_none_or(|wanted| wanted(&String::from_utf8_lossy(line), self.last_wanted))
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        let open = (!self.open.iter().all(u8::is_ascii_whitespace) && self.wants(&self.open)).then_some(&self.open);
        let all: Vec<&Vec<u8>> = self.lines.iter().chain(open).collect();
        let last = all.len().saturating_sub(LINES);
        all[last..].iter().map(|line| self.show(line)).collect()
    }

    fn show(&self, line: &[u8]) -> String {
        let text = self.redactor.redact(&String::from_utf8_lossy(line));
        if line.len() < self.room() && text.len() <= LINE_BYTES {
            return text.trim_end().to_owned();
        }
        // A secret cut in two by the limit on what is kept cannot be found: what might be its first half goes too.
        let safe = String::from_utf8_lossy(&line[..line.len().min(self.room())]);
        let safe = self.redactor.redact(&safe);
        let keep = if line.len() >= self.room() { safe.len().saturating_sub(self.redactor.longest()) } else { safe.len() };
        let mut end = keep.min(LINE_BYTES);
        while !safe.is_char_boundary(end) {
            end -= 1;
        }
        format!("{} …", &safe[..end])
    }
}

/// Reads to the end of the stream, on a thread of its own, keeping only the tail. `watch` sees all of it.
pub(super) fn drain(fd: impl AsFd, tail: &Arc<Mutex<Tail>>, watch: Option<&WatchStderr>) {
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        match rustix::io::read(&fd, &mut buffer[..]) {
            Ok(0) => return,
            Ok(n) => {
                if let Some(watch) = watch {
                    (watch.0.lock().unwrap_or_else(|p| p.into_inner()))(&buffer[..n]);
                }
                tail.lock().unwrap_or_else(|p| p.into_inner()).push(&buffer[..n]);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn tail_of(secrets: &[&str], pieces: &[&[u8]]) -> Vec<String> {
        let secrets: Vec<Secret> = secrets.iter().map(|s| Secret::new(*s)).collect();
        let mut tail = Tail::new(Redactor::new(&secrets), None);
        for piece in pieces {
            tail.push(piece);
        }
        tail.lines()
    }

    #[test]
    fn keeps_the_last_twenty_lines() {
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let lines = tail_of(&[], &[text.as_bytes(), b"open end"]);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[0], "line 81");
        assert_eq!(lines[19], "open end");
    }

    #[test]
    fn a_flood_in_one_piece_keeps_its_end() {
        let text: String = (0..100_000).map(|i| format!("line {i}\n")).collect();
        let lines = tail_of(&[], &[b"half a li", text.as_bytes()]);
        assert_eq!(lines.len(), 20);
        assert_eq!(lines[19], "line 99999");
    }

    #[test]
    fn unwanted_lines_neither_show_nor_push_out_others() {
        let mut tail =
            Tail::new(Redactor::default(), Some(|line, after_kept| line.starts_with('+') || (after_kept && line.starts_with('.'))));
        let flood: String = (0..10_000).map(|i| format!("secret {i}\n")).collect();
        tail.push(format!("+ a\n. b\n{flood}. secret\n+ c\nsecret").as_bytes());
        assert_eq!(tail.lines(), ["+ a", ". b", "+ c"]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let lines = tail_of(&[], &[&vec![b'x'; 1 << 20], &vec![b'y'; 1 << 20]]);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() < LINE_BYTES + 10);
    }

    #[test]
    fn secrets_are_removed_whole_encoded_or_cut_by_the_limit() {
        let lines = tail_of(&["p@ss word"], &[b"bad p@ss ", b"word here\nurl p%40ss%20word p%40ss+word\n"]);
        assert_eq!(lines, ["bad *** here", "url *** ***"]);
        for before in 0..LINE_BYTES + 40 {
            let line = format!("{}SECRETSECRET{}", "x".repeat(before), "z".repeat(2000));
            let lines = tail_of(&["SECRETSECRET"], &[line.as_bytes()]);
            assert!(!lines[0].contains('S'), "{before}: {}", lines[0]);
        }
    }

    #[test]
    fn control_characters_cannot_reach_the_terminal() {
        assert_eq!(tail_of(&[], &[b"a\x1b[31mred\n"]), ["a\\u{1b}[31mred"]);
    }
}
