//! A container, by the user's own `docker`: so its contexts, `DOCKER_HOST` and rootless engines work as they do for the user.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, Kind, Result};
use crate::process::{Command, Failure, Limits, Reason, lookup};
use crate::reach::engine::{self, Look};
use crate::reach::{Judge, Link, Reach, judged};

/// Variables by which `docker` finds its engine. None holds a secret.
const VARIABLES: [&str; 8] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "DOCKER_API_VERSION",
    "XDG_RUNTIME_DIR",
    "SSH_AUTH_SOCK",
];

/// How long `docker` may take to answer a question.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a container's address may take to answer before another way is tried.
const ADDRESS: Duration = Duration::from_secs(2);
/// How long what was found out holds: a container that is made anew has another id and address.
const FRESH: Duration = Duration::from_secs(30);

/// The connection inside the container, by whatever there is in the image. bash closes nothing by halves: when the client has gone, it
/// stops waiting for the server. What is said after the connection stands is of no interest.
const CARRY: &str = r#"if command -v bash >/dev/null 2>&1; then exec bash -c 'exec 3<>"/dev/tcp/$1/$2" || exit 1; exec 2>/dev/null 4<&0; cat <&3 4<&- & d=$!; { cat <&4 >&3; kill $d; } >/dev/null & wait $d' bash "$1" "$2"; elif command -v socat >/dev/null 2>&1; then exec socat - "TCP:$1:$2"; elif command -v nc >/dev/null 2>&1; then exec nc "$1" "$2"; else echo "neither bash nor socat nor nc in the container" >&2; exit 127; fi"#;

/// A container or a compose service.
#[derive(Debug)]
pub struct Docker {
    wanted: String,
    found: Mutex<Option<Found>>,
}

/// How to get at it, and when that was found out.
#[derive(Clone, Debug)]
struct Found {
    id: String,
    name: String,
    port: u16,
    way: Way,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// An address of this machine's own networks that answered.
    Address(SocketAddr),
    /// From inside the container: always the right server, whatever the network.
    Inside,
}

impl Docker {
    /// A container's own name, or the name of a compose service that one container is.
    pub fn new(wanted: impl Into<String>) -> Self {
        Docker { wanted: wanted.into(), found: Mutex::default() }
    }

    fn base(&self, what: &str) -> Result<Command> {
        let found = lookup::find("docker", &lookup::path_folders());
        let program = found.tools.first().ok_or_else(|| {
            Error::new(Kind::Preflight, format!("{what}: there is no docker in PATH"))
                .hint("install Docker's command (apt-get install docker-cli or docker.io), or run drctl as a service of the compose file")
        })?;
        Ok(Command::new(what, program).pass_on(&VARIABLES))
    }

    async fn ask(&self, args: &[&str]) -> Result<String> {
        let what = format!("docker {}", args[0]);
        let command = self.base(&what)?.args(args).limits(Limits { total: Some(ANSWER), ..Limits::default() });
        let answer = command.output(&CancellationToken::new(), engine::ANSWER).await;
        match answer {
            Ok((bytes, _)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(Failure { reason: Reason::Exit(_), stderr, .. }) if !stderr.is_empty() => Err(judged(&self.name(), &stderr, engine::judge)),
            Err(failure) => Err(failure.error),
        }
    }

    /// The container and how to get at its port: what is known, or found out anew.
    async fn find(&self, port: u16) -> Result<Found> {
        let mut known = self.found.lock().await;
        if let Some(found) = known.as_ref().filter(|f| f.port == port && f.at.elapsed() < FRESH) {
            return Ok(found.clone());
        }
        *known = None;
        let listed = self.ask(&["ps", "--all", "--no-trunc", "--format", engine::LIST]).await?;
        let container = engine::choose(&engine::list(&listed), &self.wanted).context(|| self.name())?;
        let look = self.ask(&["container", "inspect", "--format", engine::LOOK, &container.id]).await?;
        let way = self.way(&Look::read(&look)?, port).await;
        tracing::debug!(container = container.name, ?way, "how to get at the container");
        let found = Found { id: container.id, name: container.name, port, way, at: Instant::now() };
        *known = Some(found.clone());
        Ok(found)
    }

    /// An address only where it is surely the container's: the same number may be someone else's in another network.
    async fn way(&self, look: &Look, port: u16) -> Way {
        if !self.engine_is_here().await {
            return Way::Inside;
        }
        let mut candidates = match look.mode.as_str() {
            "host" if shares_our_network(look.pid) => vec![SocketAddr::from(([127, 0, 0, 1], port))],
            "host" => return Way::Inside,
            _ => look.addresses(port, is_here),
        };
        // A published port is the machine's own only when its bridge is; else it may be that of an engine in a machine of its own.
        if !candidates.is_empty() && look.mode != "host" {
            candidates.extend(look.published(port));
        }
        for candidate in candidates {
            if let Ok(Ok(_)) = tokio::time::timeout(ADDRESS, TcpStream::connect(candidate)).await {
                return Way::Address(candidate);
            }
        }
        Way::Inside
    }

    /// Whether the engine runs on this machine and in its network. When that is not known it does not.
    async fn engine_is_here(&self) -> bool {
        let local = |host: &str| host.is_empty() || host.starts_with("unix://");
        if !local(&std::env::var("DOCKER_HOST").unwrap_or_default()) {
            return false;
        }
        let context = self.ask(&["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]).await;
        let info = self.ask(&["info", "--format", engine::INFO]).await;
        context.is_ok_and(|host| local(host.trim())) && info.is_ok_and(|options| !options.contains("rootless"))
    }
}

/// An address of this machine can be bound to.
fn is_here(ip: IpAddr) -> bool {
    !ip.is_unspecified() && TcpListener::bind((ip, 0)).is_ok()
}

/// Whether a process has the network that we have. Not allowed to look counts as no.
fn shares_our_network(pid: u32) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    pid > 0 && network("self").is_some_and(|own| network(&pid.to_string()) == Some(own))
}

#[async_trait]
impl Reach for Docker {
    fn name(&self) -> String {
        format!("docker {}", self.wanted)
    }

    async fn connect(&self, _: &str, port: u16) -> Result<Link> {
        let found = self.find(port).await?;
        if let Way::Address(address) = found.way {
            match tokio::time::timeout(ADDRESS * 3, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(Link::tcp(self.name(), stream, engine::judge));
                }
                // Gone, or made anew elsewhere: the next try finds out.
                _ => *self.found.lock().await = None,
            }
        }
        let found = self.find(port).await?;
        let what = format!("docker exec in {}", found.name);
        let command = self.base(&what)?.args(["exec", "--interactive"]).arg(&found.id).args(["sh", "-c", CARRY, "sh", "127.0.0.1"]);
        Link::child(self.name(), command.arg(port.to_string()), engine::judge).await
    }

    async fn address(&self, _: &str, port: u16) -> Result<Option<SocketAddr>> {
        Ok(match self.find(port).await?.way {
            Way::Address(address) => Some(address),
            Way::Inside => None,
        })
    }

    async fn shell(&self, what: &str, script: &str, args: &[String]) -> Result<Command> {
        let known = self.found.lock().await.as_ref().map(|found| found.port);
        let found = self.find(known.unwrap_or_default()).await?;
        let command = self.base(&format!("{what} in container {}", found.name))?;
        Ok(command.args(["exec", "--interactive"]).arg(&found.id).args(["sh", "-c", script, "sh"]).args(args))
    }

    fn host_there<'a>(&self, _: &'a str) -> &'a str {
        "127.0.0.1"
    }

    fn judge(&self) -> Judge {
        engine::judge
    }
}
