//! The allow-list through which a globals dump is loaded: roles that are missing, their memberships, settings, comments and
//! rights to parameters of the server, nothing else.
//!
//! What one version of pg_dumpall writes, the server may not know: a membership has options of its own since PostgreSQL 16, settings and
//! predefined roles come with versions. What the server does not take is left out, and said.
//!
//! The text is never given to psql or to the server as it is (CVE-2025-8714 and its kin): it is cut into tokens, a statement of a known
//! shape becomes a value, and SQL is written anew from that value.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::source::postgres::connect::{ident, literal};
use crate::source::postgres::names::is_raw;

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
    /// Attributes, each as SQL.
    Alter {
        role: String,
        attributes: Vec<String>,
    },
    Set {
        role: String,
        setting: String,
        value: String,
    },
    Grant {
        role: String,
        member: String,
        options: Membership,
        grantor: Option<String>,
    },
    /// Since PostgreSQL 15: who may set a parameter of the server.
    Parameter {
        role: String,
        /// `SET`, `ALTER SYSTEM` or `ALL`.
        privilege: &'static str,
        /// As SQL.
        parameter: String,
        grantable: bool,
    },
    Comment {
        role: String,
        text: String,
    },
}

impl Statement {
    /// The roles that it names.
    pub(super) fn roles(&self) -> impl Iterator<Item = &str> {
        let (role, others) = match self {
            Statement::Create { role }
            | Statement::Alter { role, .. }
            | Statement::Set { role, .. }
            | Statement::Parameter { role, .. }
            | Statement::Comment { role, .. } => (role, [None, None]),
            Statement::Grant { role, member, grantor, .. } => (role, [Some(member), grantor.as_ref()]),
        };
        std::iter::once(role).chain(others.into_iter().flatten()).map(String::as_str)
    }

    /// What else of it can be in any letters, and what it is.
    pub(super) fn text(&self) -> Option<(&'static str, &str)> {
        match self {
            Statement::Comment { text, .. } => Some(("COMMENT ON", text)),
            Statement::Set { value, .. } => Some(("ALTER ROLE SET", value)),
            Statement::Alter { attributes, .. } => attributes.iter().find(|text| is_raw(text)).map(|text| ("ALTER ROLE", text.as_str())),
            Statement::Create { .. } | Statement::Grant { .. } | Statement::Parameter { .. } => None,
        }
    }
}

/// Options of a membership: what is not said is what the server takes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership {
    admin: Option<bool>,
    inherit: Option<bool>,
    set: Option<bool>,
}

/// What the server takes that the globals are loaded into.
pub(super) struct Taker {
    pub(super) major: u32,
    /// Whether who loads is a superuser.
    pub(super) superuser: bool,
    /// All roles that it has or is to have.
    pub(super) roles: BTreeSet<String>,
}

/// Something that is to be done, and what can be done of it when it is refused.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Without anything secret: the statement may hold a password's hash.
    pub(super) what: String,
    pub(super) sql: String,
    /// It puts on a setting, whose value may be a secret that the server would quote.
    pub(super) setting: bool,
    /// Its parts, to be tried one by one.
    pub(super) parts: Vec<Step>,
}

impl Step {
    pub(super) fn new(what: impl Into<String>, sql: impl Into<String>) -> Step {
        Step { what: what.into(), sql: sql.into(), setting: false, parts: Vec::new() }
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

    /// What makes the roles `new` as they were and leaves every other role's attributes alone. The second: what this server cannot have.
    pub(super) fn steps_for(&self, new: &BTreeSet<String>, taker: &Taker) -> (Vec<Step>, Vec<String>) {
        let (mut steps, mut left_out) = (Vec::new(), Vec::new());
        for (at, statement) in self.statements.iter().enumerate() {
            let concerned = match statement {
                Statement::Create { .. } => false,
                Statement::Grant { role, member, .. } => new.contains(role) || new.contains(member),
                Statement::Alter { role, .. }
                | Statement::Set { role, .. }
                | Statement::Comment { role, .. }
                | Statement::Parameter { role, .. } => new.contains(role),
            };
            if concerned {
                match self.step(at, new, taker) {
                    Ok(step) => steps.push(step),
                    Err(why) => left_out.push(why),
                }
            }
        }
        (steps, left_out)
    }

    fn step(&self, at: usize, new: &BTreeSet<String>, taker: &Taker) -> std::result::Result<Step, String> {
        Ok(match &self.statements[at] {
            Statement::Create { role } => Step::new(format!("role {role}"), format!("CREATE ROLE {}", ident(role))),
            Statement::Alter { role, attributes } => {
                let sql = |attributes: &str| format!("ALTER ROLE {} WITH {attributes}", ident(role));
                // Nothing of what stands in quotes.
                let name = |attribute: &str| attribute.split('\'').next().unwrap_or_default().trim_end_matches(" E").trim_end().to_owned();
                let part = |attribute: &String| Step::new(format!("role {role}: {}", name(attribute)), sql(attribute));
                let parts = if attributes.len() > 1 { attributes.iter().map(part).collect() } else { Vec::new() };
                Step { parts, ..Step::new(format!("role {role}: its attributes"), sql(&attributes.join(" "))) }
            }
            Statement::Set { role, setting, value } => {
                let sql = format!("ALTER ROLE {} SET {setting} TO {value}", ident(role));
                Step { setting: true, ..Step::new(format!("role {role}: its setting {}", setting.replace('"', "")), sql) }
            }
            Statement::Comment { role, text } => {
                Step::new(format!("role {role}: its comment"), format!("COMMENT ON ROLE {} IS {}", ident(role), literal(text)))
            }
            Statement::Parameter { role, privilege, parameter, grantable } => {
                let what = format!("role {role}: its right to {} {parameter}", privilege.to_lowercase());
                let option = if *grantable { " WITH GRANT OPTION" } else { "" };
                Step::new(what, format!("GRANT {privilege} ON PARAMETER {parameter} TO {}{option}", ident(role)))
            }
            Statement::Grant { role, member, options, grantor } => {
                let what = format!("role {member}: its membership in {role}");
                if let Some(missing) = [role, member].into_iter().find(|name| !taker.roles.contains(*name)) {
                    return Err(format!("{what} (there is no role {missing} here)"));
                }
                let given = |options: Membership, by: &str| {
                    Step::new(what.clone(), format!("GRANT {} TO {}{}{by}", ident(role), ident(member), options.sql(taker.major)))
                };
                let plain = given(self.merged(at, new, taker), "");
                match grantor.as_ref().filter(|_| self.keeps_grantor(at, new, taker)) {
                    Some(grantor) => {
                        let by = format!(" GRANTED BY {}", ident(grantor));
                        Step { parts: vec![plain], ..given(*options, &by) }
                    }
                    None => plain,
                }
            }
        })
    }

    /// Whether the server would take a membership as given by whom it was: PostgreSQL 16 and later ask that he was given the role to pass
    /// on, and that who loads may act for him. Otherwise it counts as given by who loads.
    fn keeps_grantor(&self, at: usize, new: &BTreeSet<String>, taker: &Taker) -> bool {
        let Statement::Grant { role: of, grantor: Some(grantor), .. } = &self.statements[at] else { return false };
        let may = |statement: &Statement| match statement {
            Statement::Grant { role, member, options, .. } => role == of && member == grantor && options.admin == Some(true),
            _ => false,
        };
        let known = new.contains(of) && taker.roles.contains(grantor);
        taker.major >= 16 && taker.superuser && known && self.statements[..at].iter().any(may)
    }

    /// The options of a membership that counts as given by who loads: there is only one such, whoever gave those that there were.
    fn merged(&self, at: usize, new: &BTreeSet<String>, taker: &Taker) -> Membership {
        let Statement::Grant { role: of, member: to, options, .. } = &self.statements[at] else { return Membership::default() };
        let others = self.statements.iter().enumerate().filter_map(|(other, statement)| match statement {
            Statement::Grant { role, member, options, .. } if role == of && member == to && !self.keeps_grantor(other, new, taker) => {
                Some(*options)
            }
            _ => None,
        });
        others.fold(*options, Membership::or)
    }
}

impl Membership {
    /// What either of the two allows.
    fn or(self, other: Membership) -> Membership {
        let either = |a: Option<bool>, b: Option<bool>| if a == Some(true) || b == Some(true) { Some(true) } else { a.and(b) };
        Membership {
            admin: either(self.admin, other.admin),
            inherit: either(self.inherit, other.inherit),
            set: either(self.set, other.set),
        }
    }

    fn sql(self, major: u32) -> String {
        if major < 16 {
            // Whether it inherits is a matter of the member alone there.
            return if self.admin == Some(true) { " WITH ADMIN OPTION".to_owned() } else { String::new() };
        }
        let all = [("ADMIN", self.admin), ("INHERIT", self.inherit), ("SET", self.set)];
        let said = all.iter().filter_map(|(name, value)| value.map(|value| format!("{name} {}", if value { "TRUE" } else { "FALSE" })));
        let said: Vec<String> = said.collect();
        if said.is_empty() { String::new() } else { format!(" WITH {}", said.join(", ")) }
    }
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
        if let Some(statement) = parameter(&tokens[1..]) {
            return Some(statement);
        }
        let [_, role, to, member, rest @ ..] = tokens else { return None };
        let (options, grantor) = by_whom(rest)?;
        let (role, member) = (role.name()?.to_owned(), member.name()?.to_owned());
        return to.is("to").then_some(Statement::Grant { role, member, options: membership(options)?, grantor });
    }
    if starts(&["comment", "on", "role"]) {
        let [_, _, _, name, is, Token::Text(text)] = tokens else { return None };
        return is.is("is").then_some(Statement::Comment { role: name.name()?.to_owned(), text: text.clone() });
    }
    None
}

/// The attributes that `CREATE ROLE` documents. Those that take a privilege away which a new role does not have are left out: naming them
/// needs rights that the one who restores may lack.
fn attributes(tokens: &[Token]) -> Option<Vec<String>> {
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
    let mut sql = Vec::new();
    let mut rest = tokens;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let Token::Word(word) = first else { return None };
        match (word.as_str(), tail) {
            (word, _) if DEFAULT.contains(&word) => {}
            (word, _) if KNOWN.contains(&word) => sql.push(word.to_owned()),
            ("connection", [limit, Token::Word(number), tail @ ..]) if limit.is("limit") && number.parse::<u32>().is_ok() => {
                sql.push(format!("connection limit {number}"));
                rest = tail;
            }
            ("password", [Token::Text(password), tail @ ..]) => {
                sql.push(format!("password {}", literal(password)));
                rest = tail;
            }
            ("valid", [until, Token::Text(instant), tail @ ..]) if until.is("until") => {
                sql.push(format!("valid until {}", literal(instant)));
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

/// What stands before `GRANTED BY`, and the name behind it.
fn by_whom(tokens: &[Token]) -> Option<(&[Token], Option<String>)> {
    match tokens.windows(2).position(|pair| pair[0].is("granted") && pair[1].is("by")) {
        None => Some((tokens, None)),
        Some(at) if tokens.len() == at + 3 => Some((&tokens[..at], Some(tokens[at + 2].name()?.to_owned()))),
        Some(_) => None,
    }
}

/// `WITH ADMIN OPTION`, since PostgreSQL 16 also `WITH ADMIN OPTION, INHERIT FALSE, SET TRUE`.
fn membership(tokens: &[Token]) -> Option<Membership> {
    let mut options = Membership::default();
    let [with, rest @ ..] = tokens else { return Some(options) };
    if !with.is("with") {
        return None;
    }
    for option in rest.split(|token| *token == Token::Symbol(',')) {
        let [Token::Word(name), Token::Word(value)] = option else { return None };
        let value = match value.as_str() {
            "true" | "option" => true,
            "false" => false,
            _ => return None,
        };
        match name.as_str() {
            "admin" => options.admin = Some(value),
            "inherit" => options.inherit = Some(value),
            "set" => options.set = Some(value),
            _ => return None,
        }
    }
    Some(options)
}

/// `SET ON PARAMETER name TO role WITH GRANT OPTION GRANTED BY other`, without its first word.
fn parameter(tokens: &[Token]) -> Option<Statement> {
    const PRIVILEGES: [(&[&str], &str); 3] = [(&["set"], "SET"), (&["alter", "system"], "ALTER SYSTEM"), (&["all"], "ALL")];
    let begins = |words: &[&str]| tokens.len() > words.len() && tokens.iter().zip(words).all(|(token, word)| token.is(word));
    let (words, privilege) = PRIVILEGES.into_iter().find(|(words, _)| begins(&[*words, &["on", "parameter"]].concat()))?;
    let rest = &tokens[words.len() + 2..];
    let to = rest.iter().position(|t| t.is("to"))?;
    let parameter = setting_name(&rest[..to])?;
    let role = rest.get(to + 1)?.name()?.to_owned();
    let (options, _) = by_whom(&rest[to + 2..])?;
    let grantable = match options {
        [] => false,
        [with, grant, option] if with.is("with") && grant.is("grant") && option.is("option") => true,
        _ => return None,
    };
    Some(Statement::Parameter { role, privilege, parameter, grantable })
}

/// `name`, or `part.part`, as SQL.
fn setting_name(tokens: &[Token]) -> Option<String> {
    let fits = |(at, token): (usize, &Token)| if at % 2 == 1 { *token == Token::Symbol('.') } else { token.name().is_some() };
    let well_formed = tokens.len() % 2 == 1 && tokens.iter().enumerate().all(fits);
    well_formed.then(|| tokens.iter().map(Token::sql).collect())
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

    fn taker(major: u32, roles: &[&str]) -> Taker {
        Taker { major, superuser: true, roles: new(roles) }
    }

    fn new(roles: &[&str]) -> BTreeSet<String> {
        roles.iter().map(|r| (*r).to_owned()).collect()
    }

    fn sql(text: &str, made: &[&str], taker: &Taker) -> Vec<String> {
        let (steps, _) = Globals::parse(text).unwrap().steps_for(&new(made), taker);
        steps.into_iter().map(|step| step.sql).collect()
    }

    #[test]
    fn roles_that_are_missing_are_made_and_others_left_alone() {
        let globals = Globals::parse(TEXT).unwrap();
        assert_eq!(globals.roles().collect::<Vec<_>>(), ["app", "odd;na\"me", "postgres"]);
        let (made, there) = (["app", "odd;na\"me"], ["app", "odd;na\"me", "postgres", "pg_monitor", "dba"]);
        let want = [
            "ALTER ROLE \"app\" WITH inherit nocreaterole createdb login connection limit 5 password 'SCRAM-SHA-256$4096:a;b''c' valid until '2030-01-01 00:00:00+00'",
            "ALTER ROLE \"odd;na\"\"me\" WITH nologin",
            "COMMENT ON ROLE \"app\" IS  E'back\\\\slash; and ''quote'''",
            "ALTER ROLE \"app\" SET search_path TO '$user' , 'public'",
            "ALTER ROLE \"app\" SET \"app.x\" TO '1'",
            "GRANT \"app\" TO \"odd;na\"\"me\" WITH ADMIN TRUE",
            "GRANT \"pg_monitor\" TO \"app\" WITH ADMIN FALSE, INHERIT TRUE, SET TRUE",
            "GRANT SET ON PARAMETER log_statement TO \"app\"",
        ];
        assert_eq!(sql(TEXT, &made, &taker(17, &there)), want);
        let older = sql(TEXT, &made, &taker(15, &there));
        assert_eq!(older[5..7], ["GRANT \"app\" TO \"odd;na\"\"me\" WITH ADMIN OPTION", "GRANT \"pg_monitor\" TO \"app\""]);
        assert!(sql(TEXT, &[], &taker(17, &there)).is_empty());
        assert_eq!(globals.passed_over.iter().collect::<Vec<_>>(), ["CREATE TABLESPACE"]);
    }

    /// The parts of what may be refused as a whole, and a name for each that holds no secret.
    #[test]
    fn attributes_can_be_given_one_by_one() {
        let text = "ALTER ROLE a WITH SUPERUSER LOGIN PASSWORD E'x\\\\y' VALID UNTIL '2030-01-01';";
        let (steps, _) = Globals::parse(text).unwrap().steps_for(&new(&["a"]), &taker(16, &["a"]));
        let parts: Vec<(&str, &str)> = steps[0].parts.iter().map(|part| (part.what.as_str(), part.sql.as_str())).collect();
        let want = [
            ("role a: superuser", "ALTER ROLE \"a\" WITH superuser"),
            ("role a: login", "ALTER ROLE \"a\" WITH login"),
            ("role a: password", "ALTER ROLE \"a\" WITH password  E'x\\\\y'"),
            ("role a: valid until", "ALTER ROLE \"a\" WITH valid until '2030-01-01'"),
        ];
        assert_eq!(parts, want);
    }

    /// Since PostgreSQL 16 each grantor gives a membership of his own, with options of its own.
    #[test]
    fn f89_memberships_keep_their_options_and_where_it_can_be_their_grantor() {
        let text = "CREATE ROLE made;
            GRANT made TO boss WITH ADMIN OPTION, INHERIT FALSE, SET FALSE GRANTED BY postgres;
            GRANT made TO boss WITH INHERIT TRUE GRANTED BY boss;
            GRANT made TO ann WITH INHERIT FALSE, SET FALSE GRANTED BY boss;
            GRANT pg_maintain TO boss WITH INHERIT TRUE GRANTED BY postgres;";
        let roles = ["made", "boss", "ann", "postgres"];
        let (steps, left_out) = Globals::parse(text).unwrap().steps_for(&new(&["made", "boss", "ann"]), &taker(16, &roles));
        let merged = "GRANT \"made\" TO \"boss\" WITH ADMIN TRUE, INHERIT TRUE";
        let want = [
            ("GRANT \"made\" TO \"boss\" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE", None),
            ("GRANT \"made\" TO \"boss\" WITH INHERIT TRUE GRANTED BY \"boss\"", Some(merged)),
            (
                "GRANT \"made\" TO \"ann\" WITH INHERIT FALSE, SET FALSE GRANTED BY \"boss\"",
                Some("GRANT \"made\" TO \"ann\" WITH INHERIT FALSE, SET FALSE"),
            ),
        ];
        let have: Vec<_> = steps.iter().map(|step| (step.sql.as_str(), step.parts.first().map(|part| part.sql.as_str()))).collect();
        assert_eq!(have, want);
        assert_eq!(left_out, ["role boss: its membership in pg_maintain (there is no role pg_maintain here)"]);
        // Not by a superuser: one membership, with all that the two allow.
        let managed = Taker { superuser: false, ..taker(16, &roles) };
        assert_eq!(sql(text, &["made"], &managed)[..2], [merged, merged]);
        // A server that knows none of it.
        let old =
            ["GRANT \"made\" TO \"boss\" WITH ADMIN OPTION", "GRANT \"made\" TO \"boss\" WITH ADMIN OPTION", "GRANT \"made\" TO \"ann\""];
        assert_eq!(sql(text, &["made"], &taker(15, &roles)), old);
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
            "GRANT a TO b WITH ADMIN OPTION, SUPERUSER TRUE;",
            "GRANT a TO b WITH SET (select 1);",
            "GRANT SET ON PARAMETER x TO a; DROP DATABASE x;",
            "GRANT SET ON PARAMETER (select 1) TO a;",
            "GRANT SET, ALTER SYSTEM ON PARAMETER x TO a IN ROLE postgres;",
        ] {
            let globals = Globals::parse(hostile).unwrap();
            assert!(!globals.passed_over.is_empty(), "{hostile}");
            let sql = sql(hostile, &["a", "b", "c"], &taker(17, &["a", "b", "c", "postgres"])).join(";").to_lowercase();
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
