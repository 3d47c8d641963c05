//! (being built)
mod check;
pub mod environment;
pub mod expand;
pub mod find;
pub mod load;
pub mod postgres;
pub mod problem;
pub mod raw;
pub mod schema;
pub mod secret;
pub mod tree;
pub mod typed;
pub mod values;
