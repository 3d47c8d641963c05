//! What happens, told once: one [`Event`] enum, one [`Bus`]. Terminal, metrics, notifiers and audit all listen here;
//! nothing below ops or beside it prints or notifies by itself.

pub mod bus;
pub mod event;

pub use bus::{Bus, Observer};
pub use event::Event;
