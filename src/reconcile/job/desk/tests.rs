//! The desk against an API server of a few lines.

mod check;
mod claims;
mod cost;
mod ledger;
mod limits;
mod order;
mod random;
mod unjudged;
mod world;
