//! `drctl agent`: what runs jobs by their schedules, for years, and is the first to say that something is wrong.
//!
//! [`schedule`] says what is due, [`work`] does it ([`choices`]: to which sets), [`facts`] and [`alarms`] say how it stands, [`service`] keeps them going.

pub mod alarms;
pub mod choices;
pub mod facts;
pub mod lifecycle;
pub mod log;
pub mod schedule;
pub mod service;
pub mod work;
