//! The dispatcher against an API server of a few lines.

mod check;
mod claims;
mod cost;
mod ledger;
mod limits;
mod order;
mod pending_acceptance;
mod random;
mod world;
