//! The planner against a model of the groups: after any events, the cluster reaches the wanted
//! state and comes to rest.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod any_events;
#[path = "../common/mod.rs"]
mod common;
mod doubtful;
mod growth;
mod model;
mod pace;
mod reasons;
mod room;
mod targets;
