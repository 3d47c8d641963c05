//! The one place through which every text of a message goes: secrets out, long text cut in its middle (FAULTS 64).

use std::ops::Deref;

use crate::model::Secret;
use crate::model::figures::{bytes, count};
use crate::notify::{Fact, Message};
use crate::process::{Redactor, hide_likely};

/// Bytes of a title. Slack's headers take 150 characters.
const TITLE: usize = 140;
/// Bytes of one line.
const LINE: usize = 1000;
/// Lines, and how many of them come from the beginning.
const LINES: (usize, usize) = (30, 12);
/// Bytes of a fact's label and value.
const FACT: (usize, usize) = (60, 400);
/// Facts.
const FACTS: usize = 40;
/// Bytes of a command.
const NEXT: usize = 500;
/// Shorter secrets are not looked for: they would make a riddle of every text and keep nothing secret.
const SHORTEST: usize = 4;

/// A message without secrets and of bounded size. Only a [`Cleaner`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clean(Message);

impl Deref for Clean {
    type Target = Message;
    fn deref(&self) -> &Message {
        &self.0
    }
}

/// Takes secrets out of messages.
#[derive(Clone, Default)]
pub struct Cleaner {
    redactor: Redactor,
}

impl Cleaner {
    /// A cleaner that knows these secrets; what looks like one goes too.
    pub fn new(secrets: &[Secret]) -> Cleaner {
        let long: Vec<Secret> = secrets.iter().filter(|s| s.expose().len() >= SHORTEST).cloned().collect();
        Cleaner { redactor: Redactor::new(&long) }
    }

    /// The message as it may be told. Doing it twice changes nothing more.
    pub fn clean(&self, message: Message) -> Clean {
        let key = |text: Option<String>| text.map(|text| self.text(&text, TITLE));
        Clean(Message {
            id: self.text(&message.id, TITLE),
            title: self.text(&message.title, TITLE),
            // A name of a job or of an incident holds no secret by itself, and is found by the names it has.
            incident: key(message.incident),
            job: key(message.job),
            host: self.text(&message.host, TITLE),
            run: key(message.run),
            lines: self.lines(&message.lines),
            next: message.next.map(|next| self.text(&next, NEXT)),
            facts: self.facts(message.facts),
            ..message
        })
    }

    /// One text, at most `limit` bytes.
    pub fn text(&self, text: &str, limit: usize) -> String {
        cut(&self.redactor.redact(&self.hide(text)), limit)
    }

    fn hide(&self, text: &str) -> String {
        hide_likely(&self.redactor.hide(text))
    }

    /// Lines are looked at together: a secret may go over several of them.
    fn lines(&self, lines: &[String]) -> Vec<String> {
        if lines.is_empty() {
            return Vec::new();
        }
        let all = self.hide(&lines.join("\n"));
        let all: Vec<&str> = all.lines().map(str::trim_end).collect();
        let (most, first) = LINES;
        let one = |line: &&str| cut(&self.redactor.redact(line), LINE);
        if all.len() <= most {
            return all.iter().map(one).collect();
        }
        // The middle goes: how it began and how it ended tells most.
        let last = most - first - 1;
        let left = all.len() - first - last;
        let middle = format!("… {} left out …", count(left as u64, "line"));
        all[..first].iter().map(one).chain([middle]).chain(all[all.len() - last..].iter().map(one)).collect()
    }

    fn facts(&self, facts: Vec<Fact>) -> Vec<Fact> {
        let one = |fact: &Fact| {
            // Name and value together tell that it is a secret.
            let pair = self.hide(&format!("{}={}", fact.label, fact.value));
            let value = pair.strip_prefix(&format!("{}=", fact.label)).map_or_else(|| self.hide(&fact.value), str::to_owned);
            Fact { label: self.text(&fact.label, FACT.0), value: self.text(&value, FACT.1) }
        };
        if facts.len() <= FACTS {
            return facts.iter().map(one).collect();
        }
        let more = facts.len() - (FACTS - 1);
        facts.iter().take(FACTS - 1).map(one).chain([Fact::new("more", format!("{more} left out"))]).collect()
    }
}

/// Cuts a text in its middle, where something is said of what is missing. At most `limit` bytes.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let word = format!(" … {} cut … ", bytes(text.len() as u64));
    let room = limit.saturating_sub(word.len());
    let mut head = room * 2 / 3;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - (room - room * 2 / 3);
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}{word}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Severity;
    use crate::notify::What;

    fn message() -> Message {
        Message::new(What::Test, Severity::Info, "t", "2025-01-01T00:00:00Z".parse().unwrap())
    }

    fn size(message: &Message) -> usize {
        serde_json::to_string(message).unwrap().len()
    }

    #[test]
    fn f64_a_hundred_kibibytes_of_stderr_become_a_message_with_its_beginning_and_end() {
        let stderr: Vec<String> = (0..2000).map(|i| format!("line {i}: pg_dump: error: {}", "x".repeat(30))).collect();
        assert!(stderr.iter().map(String::len).sum::<usize>() > 100 << 10 >> 1);
        let clean = Cleaner::default().clean(Message { lines: stderr, ..message() });
        assert_eq!(clean.lines.len(), 30);
        assert!(clean.lines[0].starts_with("line 0:") && clean.lines[29].starts_with("line 1999:"));
        assert_eq!(clean.lines[12], "… 1,971 lines left out …");
        let one = Cleaner::default().clean(Message { lines: vec!["y".repeat(100 << 10) + "END"], ..message() });
        assert!(one.lines[0].len() <= LINE && one.lines[0].ends_with("END") && one.lines[0].contains("… 100 KiB cut …"), "{:?}", one.lines);
    }

    #[test]
    fn f64_secrets_go_wherever_they_stand() {
        let cleaner = Cleaner::new(&[Secret::new("hunter2"), Secret::new("two\nlines"), Secret::new("a")]);
        let secret = |text: &str| text.replace('$', "hunter2");
        let clean = cleaner.clean(Message {
            id: secret("$"),
            title: secret("jisu: $"),
            incident: Some(secret("k:$")),
            job: Some(secret("j$")),
            host: secret("h$"),
            run: Some(secret("r$")),
            next: Some(secret("drctl show $")),
            lines: vec!["x two".into(), "lines y".into(), secret("pw $"), "PGPASSWORD=other postgres://u:pw@h/d".into()],
            facts: vec![Fact::new(secret("l$"), secret("v$")), Fact::new("token", "abc"), Fact::new("Size", "289 MiB")],
            ..message()
        });
        let text = serde_json::to_string(&*clean).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("other") && !text.contains("u:pw"), "{text}");
        assert_eq!(clean.lines, ["x *** y", "pw ***", "PGPASSWORD=*** postgres://u:***@h/d"]);
        assert_eq!(clean.facts[1..], [Fact::new("token", "***"), Fact::new("Size", "289 MiB")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// However long it is and wherever the secret stands: it is gone, the message is bounded, and a second time changes nothing.
        #[test]
        fn f64_a_message_of_any_size_is_bounded_and_without_its_secrets(
            lines in prop::collection::vec("[ -~é\n\u{1b}]{0,60}", 0..60), repeat in 1usize..2000, at in any::<prop::sample::Index>(), inside in any::<prop::sample::Index>()
        ) {
            let secret = "s3cr3t-c4n4ry/x";
            let mut lines = lines;
            lines.push("end".repeat(repeat));
            let line = at.index(lines.len());
            let mut split = inside.index(lines[line].len() + 1);
            while !lines[line].is_char_boundary(split) { split -= 1; }
            lines[line].insert_str(split, secret);
            let cleaner = Cleaner::new(&[Secret::new(secret)]);
            let facts = lines.iter().map(|l| Fact::new(l.clone(), l.clone())).collect();
            let clean = cleaner.clean(Message { title: lines[line].clone(), next: Some(lines[line].clone()), lines, facts, ..message() });
            let text = serde_json::to_string(&*clean).unwrap();
            prop_assert!(!text.contains("s3cr3t") && !text.contains("c4n4ry"), "{}", text);
            prop_assert!(size(&clean) < 120_000);
            prop_assert!(clean.lines.len() <= 30 && clean.lines.iter().all(|l| l.len() <= LINE), "{:?}", clean.lines);
            prop_assert!(clean.title.len() <= TITLE);
        }
    }
}
