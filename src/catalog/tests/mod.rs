//! Tests of the catalog as a whole, over a store in memory; pure parts are tested beside their code.

mod copies;
mod damage;
mod delete;
mod readers;
mod runs;
mod thief;
