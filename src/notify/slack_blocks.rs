//! A message in Slack's Block Kit, within its limits (<https://docs.slack.dev/reference/block-kit/blocks>): 50 blocks, 150 characters a header,
//! 3,000 a text, 10 fields a section with 2,000 each.

use serde_json::{Value, json};

use crate::model::Severity;
use crate::notify::{Clean, What};

const BLOCKS: usize = 50;
const HEADER: usize = 150;
const TEXT: usize = 3000;
const FIELDS: usize = 10;
const FIELD: usize = 2000;

/// `text`, what notifications show, and `blocks`.
pub fn render(message: &Clean) -> (String, Value) {
    let title = format!("{} {}", icon(message), message.title);
    let first = message.lines.first().map(|line| format!(": {line}")).unwrap_or_default();
    let summary = escaped(&format!("{}{first}", message.title), TEXT);
    let mut blocks = vec![json!({ "type": "header", "text": plain(&title, HEADER) })];
    for part in parts(&message.lines) {
        // Plain text: what a program said is shown as it stands, whatever signs are in it.
        blocks.push(json!({ "type": "section", "text": plain(&part, TEXT) }));
    }
    if let Some(next) = &message.next {
        // The fence takes six characters; nothing in it may end it.
        let command = escaped(&next.replace('`', "'"), TEXT - 6);
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": format!("```{command}```"), "verbatim": true } }));
    }
    for facts in message.facts.chunks(FIELDS) {
        let fields: Vec<Value> = facts.iter().map(|fact| plain(&format!("{}: {}", fact.label, fact.value), FIELD)).collect();
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    if let Some(words) = message.dropped_words() {
        blocks.push(json!({ "type": "section", "text": plain(&words, TEXT) }));
    }
    blocks.truncate(BLOCKS - 1);
    blocks.push(json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": context(message), "verbatim": true }] }));
    (summary, Value::Array(blocks))
}

fn icon(message: &Clean) -> &'static str {
    match (message.what, message.severity) {
        (What::IncidentRecovered, _) => "\u{2705}",
        (What::RunReport, _) if message.is_good_run() => "\u{2705}",
        (What::Digest, _) => "\u{1f4cb}",
        (What::Test | What::RunStarted, _) => "\u{1f514}",
        (_, Severity::Critical) => "\u{1f534}",
        (_, Severity::Warning) => "\u{1f7e0}",
        (_, Severity::Info) => "\u{1f535}",
    }
}

/// Severity, machine, and when it happened, in the reader's own zone.
fn context(message: &Clean) -> String {
    let host = if message.host.is_empty() { String::new() } else { format!(" · {}", escaped(&message.host, HEADER)) };
    let utc = message.at.strftime("%Y-%m-%d %H:%M UTC");
    let when = format!("<!date^{}^{{date_short_pretty}} {{time}}|{utc}>", message.at.as_second());
    format!("{}{host} · {when}", message.severity.name())
}

fn plain(text: &str, limit: usize) -> Value {
    // An empty text is refused.
    let text = if text.trim().is_empty() { "–" } else { text };
    json!({ "type": "plain_text", "text": escaped(text, limit), "emoji": false })
}

/// Lines in as few texts as they fit into.
fn parts(lines: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let width = |text: &str| text.chars().map(escaped_width).sum::<usize>();
    for line in lines {
        match parts.last_mut() {
            Some(last) if width(last) + 1 + width(line) <= TEXT => {
                last.push('\n');
                last.push_str(line);
            }
            _ => parts.push(line.clone()),
        }
    }
    parts
}

fn entity(c: char) -> Option<&'static str> {
    match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

fn escaped_width(c: char) -> usize {
    entity(c).map_or(1, str::len)
}

/// Slack's three entities, at most `limit` characters, no entity cut in two.
fn escaped(text: &str, limit: usize) -> String {
    let whole: usize = text.chars().map(escaped_width).sum();
    let room = if whole <= limit { limit } else { limit.saturating_sub(1) };
    let mut used = 0;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        used += escaped_width(c);
        if used > room {
            out.push('…');
            break;
        }
        match entity(c) {
            Some(entity) => out.push_str(entity),
            None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notify::{Cleaner, Fact, Message};

    fn texts(value: &Value, each: &mut dyn FnMut(&str)) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| texts(item, each)),
            Value::Object(map) => map.iter().for_each(|(key, item)| match item {
                Value::String(text) if key == "text" => each(text),
                other => texts(other, each),
            }),
            _ => {}
        }
    }

    #[test]
    fn escaping_and_cutting() {
        assert_eq!(escaped("a & <!channel> > b", 100), "a &amp; &lt;!channel&gt; &gt; b");
        assert_eq!(escaped("&&&", 11), "&amp;&amp;…");
        assert_eq!(escaped("&&&", 10), "&amp;…");
        assert_eq!(escaped("ééé", 3), "ééé");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Slack refuses a message whole when one of its texts is too long or empty.
        #[test]
        fn f64_whatever_is_told_fits_into_slacks_limits(
            title in ".{0,300}", lines in prop::collection::vec("[&<>`a-é\n]{0,3000}", 0..40), next in proptest::option::of("[&`a]{0,900}"),
            facts in prop::collection::vec(("[&<a]{0,70}", "[&<a]{0,900}"), 0..60), dropped in 0u64..3
        ) {
            let facts = facts.into_iter().map(|(label, value)| Fact { label, value }).collect();
            let message = Message { lines, next, facts, dropped, ..Message::new(What::IncidentOpened, Severity::Critical, title, "2025-01-01T00:00:00Z".parse().unwrap()) };
            let (summary, blocks) = render(&Cleaner::default().clean(message));
            prop_assert!(summary.chars().count() <= TEXT);
            let list = blocks.as_array().unwrap();
            prop_assert!(list.len() <= BLOCKS, "{}", list.len());
            prop_assert!(list[0]["text"]["text"].as_str().unwrap().chars().count() <= HEADER);
            prop_assert_eq!(&list[list.len() - 1]["type"], &json!("context"));
            for block in list {
                prop_assert!(block["fields"].as_array().is_none_or(|f| !f.is_empty() && f.len() <= FIELDS));
            }
            let mut bad = Vec::new();
            texts(&blocks, &mut |text| {
                let signs = text.replace("<!date^", "").contains('<');
                if text.is_empty() || text.chars().count() > TEXT || signs { bad.push(text.to_owned()); }
            });
            prop_assert!(bad.is_empty(), "{:?}", bad);
        }
    }
}
