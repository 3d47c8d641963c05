//! Hands every event to everyone who listens.

use std::sync::{Arc, Mutex};

use crate::observe::Event;

/// Someone who listens. Must return quickly: the work waits for it.
pub trait Observer: Send + Sync {
    /// Takes note of one event.
    fn observe(&self, event: &Event);
}

/// Cheap to clone; all clones share their listeners.
#[derive(Clone, Default)]
pub struct Bus(Arc<Mutex<Vec<Arc<dyn Observer>>>>);

impl Bus {
    /// A bus nobody listens to yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a listener.
    pub fn subscribe(&self, observer: Arc<dyn Observer>) {
        self.0.lock().unwrap_or_else(|p| p.into_inner()).push(observer);
    }

    /// Tells every listener, in the order in which they came.
    pub fn emit(&self, event: Event) {
        // The list is copied so that no lock is held while a listener works.
        let listeners = self.0.lock().unwrap_or_else(|p| p.into_inner()).clone();
        for listener in listeners {
            listener.observe(&event);
        }
    }

    /// [`Event::Step`].
    pub fn step(&self, text: impl Into<String>) {
        self.emit(Event::Step { text: text.into() });
    }

    /// [`Event::Warning`].
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(Event::Warning { text: text.into() });
    }
}
