mod due;
mod random;
mod zones;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn cron(text: &str) -> CronSchedule {
    CronSchedule::parse(text).unwrap()
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn entry(job: &str, what: What, expression: &str, zone_name: &str) -> Entry {
    Entry {
        job: job.parse().unwrap(),
        group: MAIN_GROUP.to_owned(),
        what,
        cron: cron(expression),
        zone: zone(zone_name),
        jitter: Duration::ZERO,
        catch_up: Schedule::CATCH_UP,
    }
}
