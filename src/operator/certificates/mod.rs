//! Certificates: one authority per installation, one leaf per party.

pub mod authority;
pub mod leaf;
pub mod name;
pub mod secrets;
