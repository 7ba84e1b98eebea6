//! Telling that whoever answered is no node's client port: the mistake that is made most with three ports a node.

use tonic::{Code, Status};

/// What somebody is told who asked another port than a node's client port.
pub const WRONG_PORT: &str = "what answers there is not a node's client port (7100 unless it was started with another); is it a peer, ops or shortener port?";

/// What it means that the first call on a connection failed: the status, or one that says [`WRONG_PORT`] where the answer was not
/// a node's. Only for calls that every release of a node answers.
pub fn at_client_port(status: Status) -> Status {
    let text = status.message();
    // Another service of ours knows no such path, and says nothing more.
    let other_service = status.code() == Code::Unimplemented && text.is_empty();
    let web_server = text.contains("mapped from HTTP status code 4") || text.contains("invalid compression flag");
    if other_service || web_server { Status::unavailable(WRONG_PORT) } else { status }
}
