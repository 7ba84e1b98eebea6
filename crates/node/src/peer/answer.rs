//! Waits for the answer to a call, and sorts its failures.

use std::error::Error as _;
use std::time::Duration;

use quorate_control::PeerError;
use quorate_types::error_chain;
use tokio::time::timeout;
use tonic::{Code, Response, Status};

/// How long a call to another node may take beside the work that it asks for.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a call, or whether the other node refused it or did not answer.
pub(super) async fn answer<T>(
    within: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, PeerError> {
    match timeout(within, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => {
            let cause = status.source().map(|cause| format!(": {}", error_chain(cause)));
            let text = status.message().to_owned() + &cause.unwrap_or_default();
            Err(match status.code() {
                Code::Unknown | Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Internal => {
                    PeerError::Unanswered(text)
                }
                _ => PeerError::Refused(text),
            })
        }
        Err(_) => Err(PeerError::Unanswered(format!("no answer within {} ms", within.as_millis()))),
    }
}
