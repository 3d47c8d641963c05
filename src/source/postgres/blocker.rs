//! Who holds the lock that a dump waits for (FAULTS 43).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::observe::Bus;
use crate::source::postgres::connect::connect;
use crate::source::postgres::settings::PostgresSettings;

/// How often to look.
const EVERY: Duration = Duration::from_millis(700);

/// The statement of the one who holds the lock is not shown: it may hold a secret (`ALTER ROLE … PASSWORD`).
const QUERY: &str = "
select format('process %s (user %s%s, %s, in its transaction for %s s)', b.pid, coalesce(b.usename, '?'),
         case when coalesce(b.application_name, '') <> '' then ', application ' || b.application_name else '' end,
         coalesce(b.state, '?'), coalesce(extract(epoch from clock_timestamp() - b.xact_start)::bigint, 0)), b.pid
from pg_stat_activity w cross join lateral unnest(pg_blocking_pids(w.pid)) as p(pid) join pg_stat_activity b on b.pid = p.pid
where w.application_name = left($1, 63) and w.wait_event_type = 'Lock' and b.application_name is distinct from w.application_name
order by b.xact_start limit 1";

/// The last one seen to hold a lock that the dump waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocker {
    /// For people.
    pub(super) who: String,
    pub(super) pid: i32,
}

/// Looks until dropped; never returns. Says on the bus whom the dump waits for, once each.
pub(super) async fn watch(settings: &PostgresSettings, application: &str, seen: Arc<Mutex<Option<Blocker>>>, bus: &Bus) {
    let mut connection = None;
    loop {
        tokio::time::sleep(EVERY).await;
        if connection.is_none() {
            // Not the dump's own name, or the watcher would be found among those who wait.
            connection = connect(settings, &settings.maintenance_database, "drctl").await.ok();
        }
        let Some(open) = &connection else { continue };
        match open.query_opt(QUERY, &[&application]).await {
            Ok(Some(row)) => {
                let blocker = Blocker { who: row.get(0), pid: row.get(1) };
                let mut seen = seen.lock().unwrap_or_else(|p| p.into_inner());
                if seen.as_ref().is_none_or(|old| old.pid != blocker.pid) {
                    bus.warn(format!("The dump waits for a lock held by {}.", blocker.who));
                }
                *seen = Some(blocker);
            }
            Ok(None) => {}
            Err(_) => connection = None,
        }
    }
}
