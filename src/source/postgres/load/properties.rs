//! Making a database with the recorded properties, putting on what pg_restore does not, and comparing.

use std::collections::BTreeSet;

use crate::source::postgres::catalog::{Database, Grant};
use crate::source::postgres::connect::{ident, literal};
use crate::source::postgres::names::is_raw;

/// Settings whose value is a list of names and must be given element by element (`GUC_LIST_QUOTE` in PostgreSQL's guc tables).
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Where databases are made that say nothing else.
pub(super) const DEFAULT_TABLESPACE: &str = "pg_default";

/// What the target has; the rest is left out.
pub(super) struct Target {
    pub(super) major: u32,
    pub(super) roles: BTreeSet<String>,
    pub(super) tablespaces: BTreeSet<String>,
}

/// `CREATE DATABASE` from template0, which alone takes any encoding and locale.
pub(super) fn create_sql(name: &str, database: &Database, target: &Target) -> String {
    let mut sql = format!("CREATE DATABASE {} TEMPLATE template0 ENCODING {}", ident(name), literal(&database.encoding));
    sql.push_str(&format!(" LC_COLLATE {} LC_CTYPE {}", literal(&database.collate), literal(&database.ctype)));
    if target.major >= 15 {
        sql.push_str(&format!(" LOCALE_PROVIDER {}", if database.provider == "libc" { "libc" } else { database.provider.as_str() }));
        match (database.provider.as_str(), &database.locale) {
            ("icu", Some(locale)) => sql.push_str(&format!(" ICU_LOCALE {}", literal(locale))),
            ("builtin", Some(locale)) => sql.push_str(&format!(" BUILTIN_LOCALE {}", literal(locale))),
            _ => {}
        }
        if let Some(rules) = &database.icu_rules {
            sql.push_str(&format!(" ICU_RULES {}", literal(rules)));
        }
    }
    if target.roles.contains(&database.owner) && !is_raw(&database.owner) {
        sql.push_str(&format!(" OWNER {}", ident(&database.owner)));
    }
    // The default one may be used by everyone, but named by those only who were granted CREATE on it.
    if database.tablespace != DEFAULT_TABLESPACE && target.tablespaces.contains(&database.tablespace) {
        sql.push_str(&format!(" TABLESPACE {}", ident(&database.tablespace)));
    }
    sql
}

/// A statement that puts a recorded property on.
pub(super) struct Property {
    pub(super) sql: String,
    /// The setting that it puts on, if it is one.
    pub(super) setting: Option<Setting>,
}

/// A recorded setting of a database, or of a role in it.
pub(super) struct Setting {
    role: Option<String>,
    /// `name=value`.
    text: String,
}

impl Setting {
    /// Whose it is and its name; the value may be a secret.
    pub(super) fn words(&self) -> String {
        let name = self.text.split('=').next().unwrap_or_default();
        self.role.as_ref().map_or_else(|| format!("setting {name}"), |role| format!("setting {name} of role {role}"))
    }

    /// Takes it out of what is recorded.
    pub(super) fn leave_out_of(&self, recorded: &mut Database) {
        let settings = match &self.role {
            Some(role) => recorded.role_settings.get_mut(role),
            None => Some(&mut recorded.settings),
        };
        settings.into_iter().for_each(|settings| settings.retain(|text| *text != self.text));
    }
}

/// Statements that put the recorded properties on database `name`; they may be repeated.
pub(super) fn property_sql(name: &str, database: &Database, target: &Target) -> Vec<Property> {
    let name = ident(name);
    let plain = |sql: String| Property { sql, setting: None };
    let setting = |whose: &str, role: Option<&String>, text: &String| {
        let setting = Some(Setting { role: role.cloned(), text: text.clone() });
        Some(Property { sql: format!("ALTER {whose} SET {}", assignment(text)?), setting })
    };
    let mut sql =
        vec![plain(format!("ALTER DATABASE {name} CONNECTION LIMIT {} IS_TEMPLATE {}", database.connection_limit, database.template))];
    // Its name cannot be sent with CREATE DATABASE, which goes by itself only.
    if target.roles.contains(&database.owner) && is_raw(&database.owner) {
        sql.push(plain(format!("ALTER DATABASE {name} OWNER TO {}", ident(&database.owner))));
    }
    let whose = format!("DATABASE {name}");
    sql.push(plain(format!("ALTER {whose} RESET ALL")));
    sql.extend(database.settings.iter().filter_map(|text| setting(&whose, None, text)));
    for (role, settings) in database.role_settings.iter().filter(|(role, _)| target.roles.contains(*role)) {
        let whose = format!("ROLE {} IN DATABASE {name}", ident(role));
        sql.push(plain(format!("ALTER {whose} RESET ALL")));
        sql.extend(settings.iter().filter_map(|text| setting(&whose, Some(role), text)));
    }
    let comment = database.comment.as_deref().map_or("NULL".to_owned(), literal);
    sql.push(plain(format!("COMMENT ON DATABASE {name} IS {comment}")));
    if let Some(acl) = &database.acl {
        sql.extend(acl_sql(&name, &database.owner, acl, target).into_iter().map(plain));
    }
    sql
}

fn acl_sql(name: &str, owner: &str, acl: &[Grant], target: &Target) -> Vec<String> {
    let mut sql = vec![format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC")];
    if target.roles.contains(owner) {
        sql.push(format!("REVOKE ALL ON DATABASE {name} FROM {}", ident(owner)));
    }
    // What the owner granted comes first: others can only pass on what they have.
    let (by_owner, by_others): (Vec<_>, Vec<_>) = known(acl, target).partition(|grant| grant.grantor == owner);
    for grant in by_owner.into_iter().chain(by_others) {
        let grantee = grant.grantee.as_deref().map_or("PUBLIC".to_owned(), ident);
        let option = if grant.grantable { " WITH GRANT OPTION" } else { "" };
        let statement = format!("GRANT {} ON DATABASE {name} TO {grantee}{option}", grant.privilege);
        sql.push(match grant.grantor == owner {
            true => statement,
            false => format!("SET SESSION AUTHORIZATION {}; {statement}; RESET SESSION AUTHORIZATION", ident(&grant.grantor)),
        });
    }
    sql
}

fn known<'a>(acl: &'a [Grant], target: &'a Target) -> impl Iterator<Item = &'a Grant> {
    const PRIVILEGES: [&str; 3] = ["CREATE", "CONNECT", "TEMPORARY"];
    acl.iter().filter(|grant| {
        PRIVILEGES.contains(&grant.privilege.as_str())
            && target.roles.contains(&grant.grantor)
            && grant.grantee.as_ref().is_none_or(|grantee| target.roles.contains(grantee))
    })
}

/// `name=value` as recorded → `name TO value` as SQL takes it.
fn assignment(setting: &str) -> Option<String> {
    let (name, value) = setting.split_once('=')?;
    // `app.user`: each part is a name.
    let quoted: Vec<String> = name.split('.').map(ident).collect();
    let value = match LISTS.contains(&name) {
        true => list(value).iter().map(|element| literal(element)).collect::<Vec<_>>().join(", "),
        false => literal(value),
    };
    Some(format!("{} TO {}", quoted.join("."), if value.is_empty() { "''".to_owned() } else { value }))
}

/// The elements of a list such as `"$user", public`.
fn list(value: &str) -> Vec<String> {
    let (mut elements, mut element, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                element.push('"');
            }
            '"' => {
                quoted = !quoted;
                any = true;
            }
            ',' if !quoted => {
                elements.push(std::mem::take(&mut element));
                any = false;
            }
            c if !quoted && c.is_whitespace() => {}
            c => element.push(c),
        }
    }
    if any || !element.is_empty() {
        elements.push(element);
    }
    elements
}

/// What differs between the recorded properties and a database's, a line each; what the target cannot have is not compared.
pub(super) fn differences(recorded: &Database, found: &Database, target: &Target) -> Vec<String> {
    let mut lines = Vec::new();
    let mut compare = |what: &str, want: String, have: String| {
        if want != have {
            lines.push(format!("{what} is {have} instead of {want}"));
        }
    };
    if target.roles.contains(&recorded.owner) {
        compare("owner", recorded.owner.clone(), found.owner.clone());
    }
    compare("encoding", recorded.encoding.clone(), found.encoding.clone());
    compare("collation", recorded.collate.clone(), found.collate.clone());
    compare("character type", recorded.ctype.clone(), found.ctype.clone());
    if target.major >= 15 {
        compare("locale provider", recorded.provider.clone(), found.provider.clone());
        if !same_locale(recorded, found) {
            compare("locale", format!("{:?}", recorded.locale), format!("{:?}", found.locale));
        }
    }
    compare("connection limit", recorded.connection_limit.to_string(), found.connection_limit.to_string());
    compare("being a template", recorded.template.to_string(), found.template.to_string());
    compare("comment", format!("{:?}", recorded.comment), format!("{:?}", found.comment));
    // Values of settings may be secrets: only their names are shown.
    let names =
        |settings: &[String]| settings.iter().map(|s| s.split('=').next().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(", ");
    let sorted = |settings: &[String]| settings.iter().cloned().collect::<BTreeSet<_>>();
    if sorted(&recorded.settings) != sorted(&found.settings) {
        lines.push(format!("settings ({}) differ from those recorded ({})", names(&found.settings), names(&recorded.settings)));
    }
    for (role, settings) in recorded.role_settings.iter().filter(|(role, _)| target.roles.contains(*role)) {
        let have = found.role_settings.get(role).map(Vec::as_slice).unwrap_or_default();
        if sorted(settings) != sorted(have) {
            lines.push(format!("settings of role {role} ({}) differ from those recorded ({})", names(have), names(settings)));
        }
    }
    if let Some(acl) = &recorded.acl {
        let (want, have) = (privileges(acl, target), privileges(found.acl.as_deref().unwrap_or_default(), target));
        if want != have {
            lines.push(format!("privileges differ: {} instead of {}", shown(&have), shown(&want)));
        }
    }
    lines
}

/// PostgreSQL 16 and later keep an ICU locale as a language tag: `de_DE@collation=phonebook` becomes `de-DE-u-co-phonebk`.
fn same_locale(recorded: &Database, found: &Database) -> bool {
    let tag = |locale: &Option<String>| locale.as_ref().map(|l| l.replace('_', "-").to_lowercase());
    if recorded.provider != "icu" {
        return recorded.locale == found.locale;
    }
    match (tag(&recorded.locale), tag(&found.locale)) {
        (Some(want), Some(have)) => match want.split_once('@') {
            Some((language, _)) => have == want || have == language || have.starts_with(&format!("{language}-u-")),
            None => have == want,
        },
        (want, have) => want == have,
    }
}

/// Who may do what. By whom it was granted is left out: what a superuser grants counts as granted by the owner, and a role may be a
/// superuser on one server only.
fn privileges<'a>(acl: &'a [Grant], target: &'a Target) -> BTreeSet<(&'a str, &'a str, bool)> {
    known(acl, target).map(|g| (g.privilege.as_str(), g.grantee.as_deref().unwrap_or("PUBLIC"), g.grantable)).collect()
}

fn shown(privileges: &BTreeSet<(&str, &str, bool)>) -> String {
    let one = |(privilege, grantee, grantable): &(&str, &str, bool)| {
        format!("{privilege} for {grantee}{}", if *grantable { " with grant option" } else { "" })
    };
    if privileges.is_empty() { "none".into() } else { privileges.iter().map(one).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        let json = serde_json::json!({
            "name": "shop", "oid": 5, "owner": "app", "encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C.UTF-8", "provider": "libc",
            "locale": null, "icu_rules": null, "collation_version": null, "connection_limit": 7, "allow_connections": true,
            "template": false, "tablespace": "pg_default", "acl": null, "comment": "it's", "size_bytes": 1
        });
        serde_json::from_value(json).unwrap()
    }

    fn target(major: u32) -> Target {
        Target { major, roles: ["app", "ro"].map(str::to_owned).into(), tablespaces: ["pg_default".to_owned()].into() }
    }

    #[test]
    fn databases_are_made_as_they_were() {
        let mut db = database();
        let want = "CREATE DATABASE \"n\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' LOCALE_PROVIDER libc \
                    OWNER \"app\"";
        assert_eq!(create_sql("n", &db, &target(15)), want);
        assert!(!create_sql("n", &db, &target(14)).contains("PROVIDER"));
        (db.provider, db.locale) = ("icu".into(), Some("de-DE".into()));
        (db.owner, db.tablespace) = ("app".into(), "fast".into());
        let mut with_fast = target(16);
        with_fast.tablespaces.insert("fast".into());
        assert!(create_sql("n", &db, &with_fast).ends_with("OWNER \"app\" TABLESPACE \"fast\""));
        db.owner = "gone".into();
        let sql = create_sql("n", &db, &target(16));
        assert!(sql.ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'"), "{sql}");
    }

    #[test]
    fn properties_become_statements() {
        let mut db = database();
        db.settings = vec!["search_path=\"$user\", public, \"a\"\"b\"".into(), "app.key=it's=x".into(), "temp_tablespaces=".into()];
        db.role_settings.insert("ro".into(), vec!["work_mem=1MB".into()]);
        db.role_settings.insert("gone".into(), vec!["work_mem=1MB".into()]);
        let grant = |grantor: &str, grantee: Option<&str>, privilege: &str, grantable| Grant {
            grantor: grantor.into(),
            grantee: grantee.map(str::to_owned),
            privilege: privilege.into(),
            grantable,
        };
        db.acl = Some(vec![
            grant("ro", None, "CONNECT", false),
            grant("app", Some("ro"), "CONNECT", true),
            grant("app", Some("gone"), "CREATE", false),
        ]);
        let want = [
            "ALTER DATABASE \"n\" CONNECTION LIMIT 7 IS_TEMPLATE false",
            "ALTER DATABASE \"n\" RESET ALL",
            "ALTER DATABASE \"n\" SET \"search_path\" TO '$user', 'public', 'a\"b'",
            "ALTER DATABASE \"n\" SET \"app\".\"key\" TO 'it''s=x'",
            "ALTER DATABASE \"n\" SET \"temp_tablespaces\" TO ''",
            "ALTER ROLE \"ro\" IN DATABASE \"n\" RESET ALL",
            "ALTER ROLE \"ro\" IN DATABASE \"n\" SET \"work_mem\" TO '1MB'",
            "COMMENT ON DATABASE \"n\" IS 'it''s'",
            "REVOKE ALL ON DATABASE \"n\" FROM PUBLIC",
            "REVOKE ALL ON DATABASE \"n\" FROM \"app\"",
            "GRANT CONNECT ON DATABASE \"n\" TO \"ro\" WITH GRANT OPTION",
            "SET SESSION AUTHORIZATION \"ro\"; GRANT CONNECT ON DATABASE \"n\" TO PUBLIC; RESET SESSION AUTHORIZATION",
        ];
        let properties = property_sql("n", &db, &target(15));
        assert_eq!(properties.iter().map(|property| property.sql.as_str()).collect::<Vec<_>>(), want);
        let settings: Vec<&Setting> = properties.iter().filter_map(|property| property.setting.as_ref()).collect();
        let words: Vec<String> = settings.iter().map(|setting| setting.words()).collect();
        assert_eq!(words, ["setting search_path", "setting app.key", "setting temp_tablespaces", "setting work_mem of role ro"]);
        settings[1].leave_out_of(&mut db);
        settings[3].leave_out_of(&mut db);
        assert_eq!((db.settings.len(), db.role_settings["ro"].len(), db.role_settings["gone"].len()), (2, 0, 1));
    }

    #[test]
    fn an_icu_locale_is_the_same_in_the_words_of_a_later_server() {
        let cases = [
            ("icu", "de_DE", "de-DE", true),
            ("icu", "de-DE", "de-DE", true),
            ("icu", "de_DE@collation=phonebook", "de-DE-u-co-phonebk", true),
            ("icu", "de_DE@collation=phonebook", "de-AT-u-co-phonebk", false),
            ("icu", "de", "fr", false),
            ("builtin", "C_UTF8", "C-UTF8", false),
        ];
        for (provider, was, is, same) in cases {
            let (mut want, mut have) = (database(), database());
            (want.provider, want.locale) = (provider.into(), Some(was.into()));
            (have.provider, have.locale) = (provider.into(), Some(is.into()));
            assert_eq!(differences(&want, &have, &target(17)).is_empty(), same, "{was} {is}");
        }
    }

    #[test]
    fn differences_are_named_without_values() {
        let (mut want, have) = (database(), database());
        assert!(differences(&want, &have, &target(15)).is_empty());
        want.settings = vec!["app.key=secret".into()];
        want.owner = "ro".into();
        want.acl = Some(vec![Grant { grantor: "app".into(), grantee: None, privilege: "CONNECT".into(), grantable: false }]);
        let lines = differences(&want, &have, &target(15));
        assert_eq!(lines[0], "owner is app instead of ro");
        assert_eq!(lines[1], "settings () differ from those recorded (app.key)");
        assert_eq!(lines[2], "privileges differ: none instead of CONNECT for PUBLIC");
    }
}
