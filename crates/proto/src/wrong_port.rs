//! Detects connections to a port that is no node's client port. With three ports a node, that is
//! the most frequent mistake.

use tonic::{Code, Status};

/// The message for a client of a wrong port.
pub const WRONG_PORT: &str = "this is not a node's client port (7100 by default); is it a peer, ops or shortener port?";

/// Interprets the error of the first call on a connection: returns the status, or one with
/// [`WRONG_PORT`] if the answer did not come from a node's client port. Only for calls that every
/// release of a node answers.
pub fn at_client_port(status: Status) -> Status {
    let text = status.message();
    // Quorate's other gRPC services do not know the path and give no message.
    let other_service = status.code() == Code::Unimplemented && text.is_empty();
    let web_server = text.contains("mapped from HTTP status code 4") || text.contains("invalid compression flag");
    if other_service || web_server { Status::unavailable(WRONG_PORT) } else { status }
}
