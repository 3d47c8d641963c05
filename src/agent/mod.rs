//! `drctl agent`: what runs jobs by their schedules, for years.

pub mod schedule;
