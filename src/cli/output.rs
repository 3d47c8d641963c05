//! Results on standard output, everything else on standard error; text and JSON are renderings of one value.

use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Kind};
use crate::ops::words::two;
pub use crate::ops::words::{bytes, count, counted, duration, number, when};

/// Name of the shape of JSON results.
pub const SCHEMA: &str = "drctl.v1";

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Only results and errors.
    pub quiet: bool,
    /// Colours on standard output and standard error.
    pub color: bool,
}

impl Output {
    /// From the options and the terminal; honours NO_COLOR.
    pub fn new(json: bool, quiet: bool, no_color: bool) -> Self {
        let color = !no_color && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal();
        Output { json, quiet, color }
    }

    /// Prints a verb's result.
    pub fn result<T: Serialize>(&self, verb: &str, value: &T, text: impl FnOnce(&T) -> String) {
        let out = if self.json {
            #[derive(Serialize)]
            struct Envelope<'a, T> {
                schema: &'static str,
                verb: &'a str,
                result: &'a T,
            }
            let line = serde_json::to_string(&Envelope { schema: SCHEMA, verb, result: value });
            line.unwrap_or_else(|e| format!("{{\"schema\":\"{SCHEMA}\",\"error\":{{\"message\":\"{e}\"}}}}")) + "\n"
        } else {
            text(value)
        };
        print(&out);
    }

    /// Prints the error that ends the verb.
    pub fn error(&self, verb: &str, error: &Error) {
        if self.json {
            let value = serde_json::json!({
                "schema": SCHEMA, "verb": verb,
                "error": { "kind": error.kind().name(), "message": error.to_string(), "hint": error.hint_text(), "exit_code": error.kind().exit_code() },
            });
            print(&format!("{value}\n"));
        }
        let (red, bold, plain) = if self.color { ("\x1b[31;1m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("{red}error:{plain} {error}\n");
        if let Some(hint) = error.hint_text() {
            text.push_str(&format!("{bold}hint:{plain} {hint}\n"));
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Writes to standard output. A reader that went away (`| head`) is no error worth words.
pub fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// The same for text that others made.
pub fn print_bytes(text: &[u8]) {
    let _ = std::io::stdout().write_all(text).and_then(|()| std::io::stdout().flush());
}

/// Whether a person can be asked.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks a question that only `yes` answers with yes.
pub fn confirm(question: &str) -> crate::error::Result<bool> {
    let _ = write!(std::io::stderr(), "{question} Type yes to go on: ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Error::new(Kind::Failed, "read the answer").because(e))?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

/// Seconds a thing took: `0.4 s`, `12 s`, `3 min 20 s`.
pub fn took(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s => two(s as i64 / 60, "min", s as i64 % 60, "s"),
    }
}

/// `3 h ago`; what is dated in the future is said to be that.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    crate::model::clock::age_seconds(at, now).map_or_else(|| "at a date in the future".to_owned(), |age| format!("{} ago", duration(age)))
}

/// Left-aligned columns, two blanks between; columns named in `right` are right-aligned.
pub fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|h| h.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut out = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let pad = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            if right.contains(&at) {
                out.push_str(&pad);
                out.push_str(cell);
            } else {
                out.push_str(cell);
                out.push_str(&pad);
            }
            out.push_str("  ");
        }
        format!("{}\n", out.trim_end())
    };
    let mut out = line(head.to_vec());
    for row in rows {
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_well() {
        let sizes =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 << 10, "10 KiB"), (1_072_693_248, "1.0 GiB"), (289 << 20, "289 MiB")];
        for (count, text) in sizes {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [(5, "5 s"), (2220, "37 min"), (7200, "2 h"), (7500, "2 h 5 min"), (273_600, "3 d 4 h"), (-5, "0 s")] {
            assert_eq!(duration(seconds), text);
        }
        for (seconds, text) in [(0.42, "0.4 s"), (12.3, "12 s"), (200.0, "3 min 20 s")] {
            assert_eq!(took(seconds), text);
        }
    }
}
