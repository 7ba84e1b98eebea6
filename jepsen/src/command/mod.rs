//! The commands of `quorate-jepsen`.

pub mod run;
pub mod suite;
