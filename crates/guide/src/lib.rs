//! Guided walks through the code: one request, from the application to the disk and back.
//!
//! * [`put`]: a write, until it is durable on a majority and applied once
//! * [`get`]: a linearizable read, and the cheaper eventual one
//! * [`moves`]: a shard's replica moves from one node to another
//!
//! Each page lists the files of the main line in the order in which a request enters them. Open
//! them side by side with the page. *Leaves* are files that are called, return a value, and never
//! call back into the main line; read them when you need them.
//!
//! This crate has no code. Its links and file lists are checked: a rename of a public item breaks
//! `cargo doc`, and the tidy test (`tests/tests/tidy/walks.rs`) finds a file or function that is
//! gone, or a main line that has grown beyond 16 files.

pub mod get;
pub mod moves;
pub mod put;
