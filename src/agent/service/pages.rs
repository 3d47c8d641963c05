//! What the agent's pages, its metrics and its textfile show: the board, made anew whenever alarms are judged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::agent::schedule::{self, Entry, What};
use crate::config::secret::SecretRef;
use crate::config::typed::{Config, StorePlace};
use crate::error::{Error, Result};
use crate::model::{JobName, Severity};
use crate::notify::Alert;
use crate::open::{STATE_FILE, stores};
use crate::ops::board::{Board, IncidentBoard, Next, Refused, RunFacts, Running, StoreBoard, jobs_of, queues_of};
use crate::ops::conformance;
use crate::web::{self, Web, textfile};

/// Key of the incident that nobody can look at the pages.
const LISTEN: &str = "listen";

/// The newest board, and the server that shows it.
pub(super) struct Pages {
    board: Arc<RwLock<Arc<Board>>>,
    serving: Option<(Wanted, CancellationToken)>,
}

/// What a server is started with; another one makes it start anew.
#[derive(Clone, PartialEq)]
struct Wanted {
    listen: SocketAddr,
    hosts: Vec<String>,
    token: Option<SecretRef>,
}

impl Pages {
    pub(super) fn new(now: Timestamp) -> Pages {
        Pages { board: Arc::new(RwLock::new(Arc::new(Board::new(stores::host(), now)))), serving: None }
    }

    /// The newest board.
    pub(super) fn board(&self) -> Arc<Board> {
        self.board.read().unwrap_or_else(|p| p.into_inner()).clone()
    }
}

impl Agent {
    /// The newest board.
    pub fn board(&self) -> Arc<Board> {
        self.pages.board()
    }

    /// Starts, stops or restarts the server as the configuration wants it. An address that is taken is an incident, and tried again with the
    /// next judgement: nothing else waits for it.
    pub async fn serve_pages(&mut self) {
        let agent = &self.config.agent;
        let wanted = agent.listen.map(|listen| Wanted { listen, hosts: agent.hosts.clone(), token: agent.token.clone() });
        if self.pages.serving.as_ref().map(|(serving, _)| serving) == wanted.as_ref() {
            return;
        }
        if let Some((_, cancel)) = self.pages.serving.take() {
            cancel.cancel();
            // Its address may be the new one's.
            tokio::task::yield_now().await;
        }
        let Some(wanted) = wanted else { return };
        match self.start_server(&wanted).await {
            Ok(cancel) => {
                self.pages.serving = Some((wanted, cancel));
                self.tell(self.desk.clear(LISTEN, None, &[]));
            }
            Err(error) => self.raise(Alert {
                lines: vec![error.to_string(), "backups go on; health and metrics are not to be had".into()],
                next: error.hint_text().map(str::to_owned),
                ..Alert::new(LISTEN, Severity::Warning, "health and metrics are not served")
            }),
        }
    }

    async fn start_server(&self, wanted: &Wanted) -> Result<CancellationToken> {
        let token = match &wanted.token {
            Some(token) => {
                let (token, environment) = (token.clone(), self.around.environment.clone());
                let fetched = tokio::task::spawn_blocking(move || token.resolve_in(&environment)).await;
                Some(fetched.map_err(|e| Error::failed("fetch agent.token").because(e))??)
            }
            None => None,
        };
        let listener = web::listen(wanted.listen)?;
        let board = self.pages.board.clone();
        let boards: web::Boards = Arc::new(move || board.read().unwrap_or_else(|p| p.into_inner()).clone());
        let secrets = self.config.known_secrets(&self.around.environment);
        let web = Web::new(boards, token)
            .clock(self.around.clock.clone())
            .hosts(std::iter::once(stores::host()).chain(wanted.hosts.iter().cloned()))
            .secrets(&secrets);
        let cancel = CancellationToken::new();
        tokio::spawn(web::serve(listener, web, cancel.clone()));
        self.log.line("info", None, &format!("health and metrics: http://{}/", wanted.listen));
        Ok(cancel)
    }

    /// Shows a board on the pages and in the textfile, with the incidents that are open now.
    pub(super) fn show(&self, mut board: Board) {
        board.incidents = self.desk.open_incidents().unwrap_or_default().iter().map(IncidentBoard::from).collect();
        if let Some(path) = &self.config.agent.textfile
            && let Err(error) = textfile::write(path, &board)
        {
            self.log.line("warn", None, &format!("the metrics file: {error}"));
        }
        *self.pages.board.write().unwrap_or_else(|p| p.into_inner()) = Arc::new(board);
    }

    /// Everything that is known, judged.
    pub(super) fn make_board(&self, now: Timestamp) -> Board {
        let config = &self.config;
        let logs: BTreeMap<_, _> = self.known.iter().map(|(job, facts)| (job.clone(), facts.log.clone())).collect();
        let runs = self.state.as_ref().and_then(|state| RunFacts::read(state).ok()).unwrap_or_default();
        let mut board = Board::new(stores::host(), self.started_at);
        board.config.path = config.files.first().map(|path| path.display().to_string());
        board.config.loaded_at = Some(self.loaded_at);
        board.config.refused = self.refused.clone().map(|(at, why)| Refused { at, why });
        board.scheduler.last_tick = Some(now);
        board.repository.looked_at = self.looked.as_ref().map(|(at, _)| *at);
        board.repository.problem = self.looked.as_ref().and_then(|(_, problem)| problem.clone());
        board.stores = self.stores_of(config);
        board.repository.location = board.stores.first().map(|store| store.location.clone()).unwrap_or_default();
        board.queues = queues_of(config.notifiers().map(|(_, notifier)| notifier.name.as_str()), &self.desk.states().unwrap_or_default());
        if let Some(newest) = self.known.values().max_by_key(|facts| facts.read_at) {
            // The board says how far this host is ahead of the store.
            board.clock.skew_seconds = Some(-newest.skew.as_secs_f64());
            board.clock.compared_at = Some(newest.read_at);
        }
        board.state.path = Some(config.state.join(STATE_FILE).display().to_string());
        board.state.problem = self.state.is_none().then(|| "it cannot be used: drctl doctor".to_owned());
        board.jobs = jobs_of(config, &logs, &runs);
        let mut entries: BTreeMap<JobName, Vec<Entry>> = BTreeMap::new();
        for entry in schedule::entries(config).into_iter().filter(|entry| entry.what != What::Drill) {
            entries.entry(entry.job.clone()).or_default().push(entry);
        }
        for (page, job) in board.jobs.iter_mut().zip(&config.jobs) {
            page.running = self.running.get(&job.name).map(|run| Running { verb: run.what.name().to_owned(), since: run.since });
            page.log_problem = self.unreadable.get(&job.name).cloned();
            for (group, _) in job.groups() {
                let interval = self.intervals.get(&(job.name.clone(), group.to_owned()));
                page.expect(group, interval.map(|interval| interval.as_secs() as i64));
            }
            let own = entries.get(&job.name).into_iter().flatten();
            let mut next: Vec<Next> = own
                .filter_map(|entry| {
                    Some(Next { group: entry.group.clone(), what: entry.what.name(), at: schedule::next_after(entry, now)? })
                })
                .collect();
            next.sort_by_key(|next| next.at);
            page.next = next;
        }
        board.judge(now);
        board
    }

    fn stores_of(&self, config: &Config) -> Vec<StoreBoard> {
        let looked = self.looked.as_ref();
        let one = |(at, store): (usize, &crate::config::typed::StoreConfig)| {
            let (location, orphan_multiparts) = match &store.place {
                StorePlace::Local { path } => (path.display().to_string(), None),
                StorePlace::S3(place) => (place.url(), conformance::left_uploads(self.state.as_deref(), &place.url())),
            };
            // Of the first store the look at the logs tells; of the others what they answered then.
            let problem = match at {
                0 => looked.map(|(_, problem)| problem.clone()),
                _ => self.stores_seen.get(&store.name).cloned(),
            };
            StoreBoard {
                name: store.name.clone(),
                location,
                optional: store.optional,
                reachable: problem.as_ref().map(Option::is_none),
                probed_at: looked.map(|(at, _)| *at),
                problem: problem.flatten(),
                orphan_multiparts,
            }
        };
        config.repository.stores.iter().enumerate().map(one).collect()
    }
}
