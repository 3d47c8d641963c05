//! The line that installs PostgreSQL's client programs on this machine.

/// Releases and the one major version of PostgreSQL that each has itself (packages.debian.org, packages.ubuntu.com).
const OWN: [(&str, u32); 6] = [("bullseye", 13), ("bookworm", 15), ("trixie", 17), ("focal", 12), ("jammy", 14), ("noble", 16)];

/// What to type for clients of this major version.
pub(super) fn install(major: u32) -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    line(&read("/etc/os-release").or_else(|| read("/usr/lib/os-release")).unwrap_or_default(), major)
}

/// By os-release(5). What is not known is taken for Debian's kin.
fn line(os_release: &str, major: u32) -> String {
    let value = |name: &str| {
        let found = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    let kin = format!("{} {}", value("ID"), value("ID_LIKE"));
    let is = |name: &str| kin.split_ascii_whitespace().any(|word| word == name);
    if is("alpine") {
        return format!("apk add postgresql{major}-client");
    }
    if is("rhel") || is("fedora") || is("centos") {
        return format!("dnf install postgresql{major} (from PostgreSQL's own archive: https://yum.postgresql.org)");
    }
    let install = format!("apt-get install postgresql-client-{major}");
    let codename = value("VERSION_CODENAME");
    match OWN.iter().find(|(name, _)| *name == codename) {
        Some((_, own)) if *own == major => install,
        // PostgreSQL's own archive has every major for every release; Debian's package knows how to add it.
        Some((_, own)) => format!(
            "apt-get install postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y && {install} ({codename} itself \
             has only {own})"
        ),
        None => format!(
            "{install}; where there is none, first: apt-get install postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
    const NOBLE: &str = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
    const PGDG: &str = "apt-get install postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y";

    #[test]
    fn the_line_is_that_of_the_release() {
        for (os_release, major, begin, end) in [
            (BOOKWORM, 15, "apt-get install postgresql-client-15", "postgresql-client-15"),
            (NOBLE, 16, "apt-get install postgresql-client-16", "postgresql-client-16"),
            (BOOKWORM, 17, PGDG, "&& apt-get install postgresql-client-17 (bookworm itself has only 15)"),
            // An older one is not there either.
            (NOBLE, 14, PGDG, "&& apt-get install postgresql-client-14 (noble itself has only 16)"),
            ("ID=debian\nVERSION_CODENAME=forky\n", 18, "apt-get install postgresql-client-18; where there is none, first: ", "-y"),
            ("", 18, "apt-get install postgresql-client-18; where", PGDG),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", 16, "dnf install postgresql16 ", "yum.postgresql.org)"),
            ("ID=fedora\n", 16, "dnf install postgresql16 ", ")"),
            ("ID=alpine\n", 17, "apk add postgresql17-client", "client"),
        ] {
            let line = line(os_release, major);
            assert!(line.starts_with(begin) && line.ends_with(end), "{line}");
        }
    }
}
