//! What the user's `docker` says of containers. Texts in, values out; nothing is run here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::process::human_bytes;

/// `docker ps --all --no-trunc --format …`: one container a line, fields parted by tabs.
pub(super) const LIST: &str = r#"{{.ID}}	{{.Names}}	{{.State}}	{{.Label "com.docker.compose.project"}}	{{.Label "com.docker.compose.service"}}	{{.Label "com.docker.compose.oneoff"}}"#;

/// `docker container inspect --format …`: what is needed and no more, for the whole holds the container's environment with its passwords.
pub(super) const LOOK: &str = r#"{"pid":{{json .State.Pid}},"mode":{{json .HostConfig.NetworkMode}},"networks":{{json .NetworkSettings.Networks}},"ports":{{json .NetworkSettings.Ports}}}"#;

/// `docker info --format …`: whether the engine is this machine's own and sees its network.
pub(super) const INFO: &str = "{{json .SecurityOptions}}";

/// Largest answer of `docker` that is read, in bytes.
pub(super) const ANSWER: usize = 8 << 20;

/// One container as the list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) state: String,
    project: String,
    service: String,
}

impl Listed {
    /// `shop-db-1 (running, service db of shop)`.
    fn shown(&self) -> String {
        match self.service.is_empty() {
            true => format!("{} ({})", self.name, self.state),
            false => format!("{} ({}, service {} of {})", self.name, self.state, self.service, self.project),
        }
    }
}

/// The list. Lines that are none are passed over; containers of `docker compose run` are not the service.
pub(super) fn list(text: &str) -> Vec<Listed> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split('\t').map(|field| field.chars().filter(|c| !c.is_control()).collect::<String>());
        let (id, names, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (project, service, once) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
        let hex = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
        // A linked container has more names: `db,web/db`.
        let name = names.split(',').find(|n| !n.contains('/'))?.to_owned();
        let service = if once.eq_ignore_ascii_case("true") { String::new() } else { service };
        hex.then_some(Listed { id, name, state, project, service })
    });
    lines.collect()
}

/// The running container that `wanted` names: a container of exactly this name, else the one of this compose service.
pub(super) fn choose(containers: &[Listed], wanted: &str) -> Result<Listed> {
    let named = containers.iter().find(|c| c.name == wanted);
    let of_service: Vec<&Listed> = containers.iter().filter(|c| c.service == wanted).collect();
    let found = match (named, of_service.as_slice()) {
        (Some(named), _) => named,
        (None, [one]) => one,
        (None, []) => {
            let running: Vec<String> = containers.iter().filter(|c| c.state == "running").map(Listed::shown).collect();
            let error = Error::new(Kind::Preflight, format!("there is no container and no compose service '{wanted}'"));
            return Err(match running.is_empty() {
                true => error.hint("no container is running; docker ps --all lists those that are there, docker compose up -d starts them"),
                false => error.hint(format!("running: {}", running.join(", "))),
            });
        }
        (None, several) => {
            let all: Vec<String> = several.iter().map(|c| c.shown()).collect();
            return Err(Error::new(
                Kind::Preflight,
                format!("{} containers are compose service '{wanted}': {}", all.len(), all.join(", ")),
            )
            .hint(format!("name the container itself: reach: {{ docker: {} }}", several[0].name)));
        }
    };
    let name = &found.name;
    let what = format!("container {name} is {}", if found.state.is_empty() { "in no known state" } else { &found.state });
    match found.state.as_str() {
        "running" => Ok(found.clone()),
        "paused" => Err(Error::new(Kind::Unreachable, what).hint(format!("docker unpause {name}"))),
        "restarting" => Err(Error::new(Kind::Unreachable, what).hint(format!("docker logs --tail 50 {name} says why"))),
        _ => Err(Error::new(Kind::Unreachable, what).hint(format!("docker start {name}"))),
    }
}

/// What is needed of one container.
#[derive(Debug, Deserialize)]
pub(super) struct Look {
    /// Its first process, as the engine's machine counts them.
    #[serde(default)]
    pub(super) pid: u32,
    /// `bridge`, `host`, `none`, `container:ID`, or a network's name.
    #[serde(default)]
    pub(super) mode: String,
    networks: Option<BTreeMap<String, Option<Network>>>,
    ports: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Network {
    #[serde(rename = "IPAddress")]
    ip_address: Option<String>,
    gateway: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Binding {
    host_ip: Option<String>,
    host_port: Option<String>,
}

impl Look {
    pub(super) fn read(text: &str) -> Result<Look> {
        serde_json::from_str(text.trim()).map_err(|e| {
            Error::failed(format!("docker inspect gave {} that are no description of a container", human_bytes(text.len() as u64)))
                .because(e)
        })
    }

    /// Addresses of the container on networks whose gateway is this machine: one whose gateway is not here may be a stranger's address.
    pub(super) fn addresses(&self, port: u16, is_here: impl Fn(IpAddr) -> bool) -> Vec<SocketAddr> {
        let parse = |text: &Option<String>| text.as_ref().and_then(|t| t.parse::<IpAddr>().ok());
        let networks = self.networks.iter().flat_map(|all| all.values()).flatten();
        let usable = networks.filter_map(|n| Some((parse(&n.ip_address)?, parse(&n.gateway)?)));
        usable.filter(|(_, gateway)| is_here(*gateway)).map(|(ip, _)| SocketAddr::new(ip, port)).collect()
    }

    /// Where this machine publishes the port.
    pub(super) fn published(&self, port: u16) -> Vec<SocketAddr> {
        let bindings = self.ports.iter().filter_map(|all| all.get(&format!("{port}/tcp"))).flatten().flatten();
        let places = bindings.filter_map(|b| {
            let ip: IpAddr = b.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0").parse().ok()?;
            let ip = match ip {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
                IpAddr::V6(ip) if ip.is_unspecified() => return None,
                ip => ip,
            };
            Some(SocketAddr::new(ip, b.host_port.as_ref()?.parse().ok()?))
        });
        places.collect()
    }
}

/// What `docker` says when it fails.
pub(super) fn judge(words: &str) -> Option<(Kind, &'static str)> {
    let said = |piece: &str| words.contains(piece);
    if said("permission denied") && (said("docker.sock") || said("daemon socket") || said("connect to the Docker")) {
        return Some((
            Kind::Preflight,
            "run drctl as root, or as a user of the group docker: usermod -aG docker USER (that group can become root), or as a service of \
             the compose file, which needs neither",
        ));
    }
    if said("Cannot connect to the Docker daemon") || said("Is the docker daemon running") {
        return Some((Kind::Unreachable, "start the engine (systemctl start docker), or set DOCKER_HOST or DOCKER_CONTEXT for drctl too"));
    }
    if said("executable file not found") || said("neither bash nor socat nor nc") {
        return Some((Kind::Preflight, "the image has no shell that can connect: publish the port on 127.0.0.1 and use host and port"));
    }
    if said("Connection refused") {
        return Some((
            Kind::Unreachable,
            "the container runs, but nothing listens on that port in it: does it start up, or use another port?",
        ));
    }
    if said("is not running") || said("No such container") {
        return Some((Kind::Unreachable, "docker ps --all shows its state"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers() -> Vec<Listed> {
        list(
            "aa11\tshop-db-1\trunning\tshop\tdb\tFalse\n\
             bb22\tshop-web-1\trunning\tshop\tweb\tFalse\n\
             cc33\tshop-db-run-9\trunning\tshop\tdb\tTrue\n\
             dd44\told-web-1\texited\told\tweb\tFalse\n\
             ee55\tredis,shop-web-1/cache\tpaused\t\t\t\n\
             ff66\tlone\texited\t\t\t\n\
             not a line\n\
             -f\tbad\trunning\t\t\t\n",
        )
    }

    #[test]
    fn a_container_is_chosen_by_its_name_then_by_its_service() {
        let all = containers();
        assert_eq!(all.len(), 6);
        let chosen = |wanted: &str| choose(&all, wanted);
        assert_eq!(chosen("db").unwrap().id, "aa11");
        assert_eq!(chosen("shop-web-1").unwrap().id, "bb22");
        for (wanted, kind, words, hint) in [
            (
                "web",
                Kind::Preflight,
                "2 containers are compose service 'web': shop-web-1 (running, service web of shop), old-web-1 (exited",
                "shop-web-1 }",
            ),
            ("redis", Kind::Unreachable, "container redis is paused", "docker unpause redis"),
            ("lone", Kind::Unreachable, "container lone is exited", "docker start lone"),
            ("aa11", Kind::Preflight, "no container and no compose service 'aa11'", "running: shop-db-1 (running, service db of shop)"),
        ] {
            let error = chosen(wanted).unwrap_err();
            assert_eq!(error.kind(), kind, "{wanted}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.hint_text().unwrap().contains(hint), "{error:?}");
        }
        assert!(choose(&[], "db").unwrap_err().hint_text().unwrap().contains("docker compose up -d"));
    }

    #[test]
    fn only_addresses_of_this_machines_networks_are_taken() {
        let look = Look::read(
            r#"{"pid":7,"mode":"shop_default","networks":{"front":{"IPAddress":"172.19.0.3","Gateway":"172.19.0.1"},
                "macvlan":{"IPAddress":"10.0.0.9","Gateway":"10.0.0.1"},"off":{"IPAddress":"","Gateway":""},"x":null},
                "ports":{"5432/tcp":[{"HostIp":"0.0.0.0","HostPort":"6432"},{"HostIp":"::","HostPort":"6432"}],"80/tcp":null}}"#,
        )
        .unwrap();
        let here = |ip: IpAddr| ip.to_string() == "172.19.0.1";
        assert_eq!(look.addresses(5432, here), ["172.19.0.3:5432".parse().unwrap()]);
        assert_eq!(look.addresses(5432, |_| false), []);
        assert_eq!(look.published(5432), ["127.0.0.1:6432".parse().unwrap()]);
        assert_eq!(look.published(80), []);
        let bare = Look::read(r#"{"pid":0,"mode":"none","networks":null,"ports":null}"#).unwrap();
        assert!(bare.addresses(1, |_| true).is_empty() && bare.published(1).is_empty());
        assert!(Look::read("<no value>").is_err());
    }

    #[test]
    fn what_docker_says_is_understood() {
        for (words, kind) in [
            (
                "Got permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: …",
                Some(Kind::Preflight),
            ),
            ("permission denied while trying to connect to the Docker daemon socket", Some(Kind::Preflight)),
            ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", Some(Kind::Unreachable)),
            ("OCI runtime exec failed: exec: \"sh\": executable file not found in $PATH", Some(Kind::Preflight)),
            ("bash: connect: Connection refused", Some(Kind::Unreachable)),
            ("something else", None),
        ] {
            assert_eq!(judge(words).map(|(kind, _)| kind), kind, "{words}");
        }
    }

    proptest::proptest! {
        #[test]
        fn strange_answers_do_no_harm(text in "[a-f0-9\t\n,/:{}\"]{0,200}") {
            let all = list(&text);
            let _ = (choose(&all, "a"), Look::read(&text));
            proptest::prop_assert!(all.iter().all(|c| !c.id.starts_with('-') && !c.name.contains('\n')));
        }
    }
}
