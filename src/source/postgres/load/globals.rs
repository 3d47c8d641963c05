//! The allow-list through which a globals dump is loaded: roles that are missing, their memberships and comments, nothing else.
//!
//! The text is never given to psql or to the server as it is (CVE-2025-8714 and its kin): it is cut into tokens, a statement of a known
//! shape becomes a value, and SQL is written anew from that value.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::source::postgres::connect::{ident, literal};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Unquoted, in lower case.
    Word(String),
    Quoted(String),
    Text(String),
    Symbol(char),
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(have) if have == word)
    }

    fn name(&self) -> Option<&str> {
        match self {
            Token::Word(name) | Token::Quoted(name) => Some(name),
            _ => None,
        }
    }

    fn sql(&self) -> String {
        match self {
            Token::Word(word) => word.clone(),
            Token::Quoted(name) => ident(name),
            Token::Text(text) => literal(text),
            Token::Symbol(symbol) => symbol.to_string(),
        }
    }
}

/// A statement that a restore may make. `Debug` is left out: it may hold a password's hash.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Statement {
    Create {
        role: String,
    },
    /// Attributes as SQL.
    Alter {
        role: String,
        attributes: String,
    },
    Set {
        role: String,
        setting: String,
        value: String,
    },
    Grant {
        role: String,
        member: String,
        options: String,
    },
    Comment {
        role: String,
        text: String,
    },
}

impl Statement {
    /// The roles that it names.
    pub(super) fn roles(&self) -> impl Iterator<Item = &str> {
        let (role, member) = match self {
            Statement::Create { role } | Statement::Alter { role, .. } | Statement::Set { role, .. } | Statement::Comment { role, .. } => {
                (role, None)
            }
            Statement::Grant { role, member, .. } => (role, Some(member)),
        };
        std::iter::once(role).chain(member).map(String::as_str)
    }

    /// What else of it can be in any letters, and what it is.
    pub(super) fn text(&self) -> Option<(&'static str, &str)> {
        match self {
            Statement::Comment { text, .. } => Some(("COMMENT ON", text)),
            Statement::Set { value, .. } => Some(("ALTER ROLE SET", value)),
            Statement::Alter { attributes, .. } => Some(("ALTER ROLE", attributes)),
            Statement::Create { .. } | Statement::Grant { .. } => None,
        }
    }
}

/// What a globals dump says.
#[derive(Default)]
pub(super) struct Globals {
    pub(super) statements: Vec<Statement>,
    /// First words of statements that are not loaded, each once.
    pub(super) passed_over: BTreeSet<String>,
}

impl Globals {
    /// Reads the text that pg_dumpall wrote.
    pub(super) fn parse(text: &str) -> Result<Globals> {
        let mut globals = Globals::default();
        for tokens in statements(text)? {
            match statement(&tokens) {
                Some(statement) => globals.statements.push(statement),
                // SET lines for the session of psql.
                None if tokens.first().is_some_and(|t| t.is("set")) => {}
                None => {
                    let words = tokens.iter().take_while(|t| matches!(t, Token::Word(_))).take(2);
                    globals.passed_over.insert(words.map(Token::sql).collect::<Vec<_>>().join(" ").to_uppercase());
                }
            }
        }
        Ok(globals)
    }

    /// The roles it would make.
    pub(super) fn roles(&self) -> impl Iterator<Item = &str> {
        self.statements.iter().filter_map(|s| match s {
            Statement::Create { role } => Some(role.as_str()),
            _ => None,
        })
    }

    /// SQL that makes the roles `new` and leaves every other role's attributes alone.
    pub(super) fn sql_for(&self, new: &BTreeSet<String>) -> Vec<String> {
        self.statements.iter().filter_map(|s| sql_for(s, new)).collect()
    }
}

fn sql_for(statement: &Statement, new: &BTreeSet<String>) -> Option<String> {
    Some(match statement {
        Statement::Alter { role, attributes } if new.contains(role) => format!("ALTER ROLE {} WITH{attributes}", ident(role)),
        Statement::Set { role, setting, value } if new.contains(role) => format!("ALTER ROLE {} SET {setting} TO {value}", ident(role)),
        Statement::Comment { role, text } if new.contains(role) => format!("COMMENT ON ROLE {} IS {}", ident(role), literal(text)),
        Statement::Grant { role, member, options } if new.contains(role) || new.contains(member) => {
            format!("GRANT {} TO {}{options}", ident(role), ident(member))
        }
        _ => return None,
    })
}

/// Cuts the text into statements of tokens.
fn statements(text: &str) -> Result<Vec<Vec<Token>>> {
    let odd = |what: &str| Error::corrupt(format!("the globals hold {what}"));
    let (mut all, mut open) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        match c {
            c if c.is_whitespace() => {}
            '-' if rest.starts_with("--") => used = rest.find('\n').unwrap_or(rest.len()),
            // \restrict and \unrestrict of newer versions stand between statements.
            '\\' if open.is_empty() => used = rest.find('\n').unwrap_or(rest.len()),
            ';' => {
                if !open.is_empty() {
                    all.push(std::mem::take(&mut open));
                }
            }
            '"' => {
                let (value, length) = quoted(rest, '"', false).ok_or_else(|| odd("a name without an end"))?;
                open.push(Token::Quoted(value));
                used = length;
            }
            '\'' => {
                let (value, length) = quoted(rest, '\'', false).ok_or_else(|| odd("a text without an end"))?;
                open.push(Token::Text(value));
                used = length;
            }
            'e' | 'E' if rest[1..].starts_with('\'') => {
                let (value, length) = quoted(&rest[1..], '\'', true).ok_or_else(|| odd("a text without an end"))?;
                open.push(Token::Text(value));
                used = 1 + length;
            }
            c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => {
                let end = rest.find(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                open.push(Token::Word(rest[..end].to_ascii_lowercase()));
                used = end;
            }
            '.' | ',' | '=' | '-' | '(' | ')' | '/' | '*' => open.push(Token::Symbol(c)),
            c => return Err(odd(&format!("a '{}' outside of quotes", c.escape_debug()))),
        }
        rest = &rest[used..];
    }
    if open.is_empty() { Ok(all) } else { Err(odd("a statement without an end")) }
}

/// What stands in quotes at the start of `text`, and how many bytes that takes. A doubled quote is one; so is one behind a backslash
/// when `escapes` says so, where a doubled backslash is one too and no other escape is known.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return Some((value, at + 1));
            }
        } else if c == '\\' && escapes {
            let (_, next) = chars.next()?;
            if next != '\\' && next != quote {
                return None;
            }
            value.push(next);
            continue;
        }
        value.push(c);
    }
    None
}

fn statement(tokens: &[Token]) -> Option<Statement> {
    let starts = |words: &[&str]| tokens.len() > words.len() && tokens.iter().zip(words).all(|(token, word)| token.is(word));
    if starts(&["create", "role"]) {
        let [_, _, name] = tokens else { return None };
        return Some(Statement::Create { role: name.name()?.to_owned() });
    }
    if starts(&["alter", "role"]) {
        let role = tokens[2].name()?.to_owned();
        return match tokens.get(3)? {
            with if with.is("with") => Some(Statement::Alter { role, attributes: attributes(&tokens[4..])? }),
            set if set.is("set") => {
                let to = tokens.iter().position(|t| t.is("to")).filter(|at| (5..=7).contains(at))?;
                let setting = tokens[4..to].iter().map(Token::sql).collect::<String>();
                Some(Statement::Set { role, setting, value: value_list(&tokens[to + 1..])? })
            }
            _ => None,
        };
    }
    if starts(&["grant"]) {
        let (role, member) = (tokens[1].name()?.to_owned(), tokens.get(3)?.name()?.to_owned());
        return tokens[2]
            .is("to")
            .then_some(())
            .and_then(|()| Some(Statement::Grant { role, member, options: grant_options(&tokens[4..])? }));
    }
    if starts(&["comment", "on", "role"]) {
        let [_, _, _, name, is, Token::Text(text)] = tokens else { return None };
        return is.is("is").then_some(Statement::Comment { role: name.name()?.to_owned(), text: text.clone() });
    }
    None
}

/// The attributes that `CREATE ROLE` documents. Those that take a privilege away which a new role does not have are left out: naming them
/// needs rights that the one who restores may lack.
fn attributes(tokens: &[Token]) -> Option<String> {
    const KNOWN: [&str; 11] = [
        "superuser",
        "inherit",
        "noinherit",
        "createrole",
        "nocreaterole",
        "createdb",
        "nocreatedb",
        "login",
        "nologin",
        "replication",
        "bypassrls",
    ];
    const DEFAULT: [&str; 3] = ["nosuperuser", "noreplication", "nobypassrls"];
    let mut sql = String::new();
    let mut rest = tokens;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let Token::Word(word) = first else { return None };
        match (word.as_str(), tail) {
            (word, _) if DEFAULT.contains(&word) => {}
            (word, _) if KNOWN.contains(&word) => sql.push_str(&format!(" {word}")),
            ("connection", [limit, Token::Word(number), tail @ ..]) if limit.is("limit") && number.parse::<u32>().is_ok() => {
                sql.push_str(&format!(" connection limit {number}"));
                rest = tail;
            }
            ("password", [Token::Text(password), tail @ ..]) => {
                sql.push_str(&format!(" password {}", literal(password)));
                rest = tail;
            }
            ("valid", [until, Token::Text(instant), tail @ ..]) if until.is("until") => {
                sql.push_str(&format!(" valid until {}", literal(instant)));
                rest = tail;
            }
            _ => return None,
        }
    }
    Some(sql)
}

/// Values of a setting: texts, names and numbers with commas between them.
fn value_list(tokens: &[Token]) -> Option<String> {
    let fits = |(at, token): (usize, &Token)| match token {
        Token::Symbol(symbol) => at % 2 == 1 && *symbol == ',',
        _ => at % 2 == 0,
    };
    let well_formed = tokens.len() % 2 == 1 && tokens.iter().enumerate().all(fits);
    well_formed.then(|| tokens.iter().map(Token::sql).collect::<Vec<_>>().join(" "))
}

/// `WITH ADMIN OPTION`, or since PostgreSQL 16 `WITH ADMIN TRUE, INHERIT FALSE, SET TRUE`. The grantor is left out: it becomes whoever restores.
fn grant_options(tokens: &[Token]) -> Option<String> {
    let end = tokens.windows(2).position(|pair| pair[0].is("granted") && pair[1].is("by")).unwrap_or(tokens.len());
    const WORDS: [&str; 7] = ["with", "admin", "option", "inherit", "set", "true", "false"];
    let known = |t: &Token| *t == Token::Symbol(',') || WORDS.iter().any(|word| t.is(word));
    let options = &tokens[..end];
    let sql: String = options.iter().map(|t| format!(" {}", t.sql())).collect();
    (options.iter().all(known) && (end == tokens.len() || tokens.len() == end + 3)).then_some(sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"--
-- PostgreSQL database cluster dump
--
\restrict abc'"$;
SET default_transaction_read_only = off;
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:a;b''c' VALID UNTIL '2030-01-01 00:00:00+00';
CREATE ROLE "odd;na""me";
ALTER ROLE "odd;na""me" WITH NOSUPERUSER NOLOGIN;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER;
COMMENT ON ROLE app IS E'back\\slash; and ''quote''';
ALTER ROLE app SET search_path TO '$user', 'public';
ALTER ROLE app SET "app.x" TO '1';
GRANT app TO "odd;na""me" WITH ADMIN OPTION GRANTED BY postgres;
GRANT pg_monitor TO app WITH ADMIN FALSE, INHERIT TRUE, SET TRUE GRANTED BY postgres;
GRANT postgres TO dba;
CREATE TABLESPACE fast OWNER app LOCATION '/x';
GRANT SET ON PARAMETER log_statement TO app;
\unrestrict abc
"#;

    #[test]
    fn roles_that_are_missing_are_made_and_others_left_alone() {
        let globals = Globals::parse(TEXT).unwrap();
        assert_eq!(globals.roles().collect::<Vec<_>>(), ["app", "odd;na\"me", "postgres"]);
        let new = BTreeSet::from(["app".to_owned(), "odd;na\"me".to_owned()]);
        let want = [
            "ALTER ROLE \"app\" WITH inherit nocreaterole createdb login connection limit 5 password 'SCRAM-SHA-256$4096:a;b''c' valid until '2030-01-01 00:00:00+00'",
            "ALTER ROLE \"odd;na\"\"me\" WITH nologin",
            "COMMENT ON ROLE \"app\" IS  E'back\\\\slash; and ''quote'''",
            "ALTER ROLE \"app\" SET search_path TO '$user' , 'public'",
            "ALTER ROLE \"app\" SET \"app.x\" TO '1'",
            "GRANT \"app\" TO \"odd;na\"\"me\" with admin option",
            "GRANT \"pg_monitor\" TO \"app\" with admin false , inherit true , set true",
        ];
        assert_eq!(globals.sql_for(&new), want);
        assert!(globals.sql_for(&BTreeSet::new()).is_empty());
        assert_eq!(globals.passed_over.iter().collect::<Vec<_>>(), ["CREATE TABLESPACE", "GRANT SET"]);
    }

    #[test]
    fn nothing_else_gets_through() {
        for hostile in [
            "CREATE ROLE a SUPERUSER;",
            "CREATE ROLE a; DROP DATABASE shop;",
            "ALTER ROLE a WITH LOGIN IN ROLE postgres;",
            "ALTER ROLE a SET x TO (select 1);",
            "ALTER ROLE a SET x TO 1 2;",
            "ALTER ROLE a RENAME TO b;",
            "GRANT a TO b, c;",
            "GRANT a TO b WITH ADMIN OPTION GRANTED BY c; COPY x FROM PROGRAM 'y';",
            "GRANT ALL ON DATABASE x TO y;",
            "COMMENT ON ROLE a IS 'x' 'y';",
            "COPY x TO PROGRAM 'rm';",
        ] {
            let globals = Globals::parse(hostile).unwrap();
            assert!(!globals.passed_over.is_empty(), "{hostile}");
            let sql = globals.sql_for(&BTreeSet::from(["a".into(), "b".into()])).join(";").to_lowercase();
            assert!(!["drop", "copy", "select", "superuser", "in role", "rename"].iter().any(|w| sql.contains(w)), "{sql}");
        }
        for broken in
            ["CREATE ROLE a", "COMMENT ON ROLE a IS 'x", "DO $$ CREATE ROLE a; $$;", "x \\! ls;", "COMMENT ON ROLE a IS E'\\x41';", "\"a"]
        {
            assert!(Globals::parse(broken).is_err(), "{broken}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-zA-Z '\"\\\\;$\n-]{0,80}|.{0,60}") {
            let _ = Globals::parse(&text);
        }

        #[test]
        fn names_and_texts_survive(name in "[^\0]{1,20}", text in "[^\0]{0,20}") {
            let sql = format!("CREATE ROLE {0}; COMMENT ON ROLE {0} IS {1};", ident(&name), literal(&text));
            let globals = Globals::parse(&sql).unwrap();
            let want = vec![Statement::Create { role: name.clone() }, Statement::Comment { role: name, text }];
            proptest::prop_assert!(globals.statements == want);
        }
    }
}
