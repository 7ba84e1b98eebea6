//! Links in a Quorate cluster: the key `url/{code}` holds the target's bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_client::ReadLevel;
use quorate_client::{Client, Error};

use crate::Code;
use crate::links::{Created, LinkError, Links};

/// How long one write may take: long enough for a failover of its shard's leader (1.5 s), and short
/// enough that another code, on another shard, can still be tried within the request.
const WRITE_DEADLINE: Duration = Duration::from_secs(4);
/// How long an eventual read may take: any live replica answers within milliseconds.
const EVENTUAL_DEADLINE: Duration = Duration::from_secs(1);
/// How long a strong read may take: long enough for a failover.
const STRONG_DEADLINE: Duration = Duration::from_secs(4);
/// The recommended wait when the store is overloaded: it does not give one itself.
const OVERLOAD_PAUSE: Duration = Duration::from_secs(1);
/// A key without a code, so never a link. Reading it shows that the store responds.
const PROBE_KEY: &str = "url/";

/// Links in a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    client: Client,
}

impl Store {
    /// Links in the cluster that the client is connected to.
    pub fn new(client: Client) -> Self {
        Store { client }
    }
}

fn key(code: Code) -> String {
    format!("url/{code}")
}

impl Links for Store {
    async fn create(&self, code: Code, target: &str) -> Result<Created, LinkError> {
        let value = Bytes::copy_from_slice(target.as_bytes());
        match self.client.put(key(code), value).if_absent().deadline(WRITE_DEADLINE).await {
            Ok(_) => Ok(Created::Done),
            Err(Error::Refused { .. }) => Ok(Created::Taken),
            Err(error) => Err(link_error(error)),
        }
    }

    async fn lookup(&self, code: Code, level: ReadLevel) -> Result<Option<Arc<str>>, LinkError> {
        let deadline = match level {
            ReadLevel::Eventual => EVENTUAL_DEADLINE,
            ReadLevel::Strong => STRONG_DEADLINE,
        };
        let read = self.client.get(key(code)).level(level).deadline(deadline).await.map_err(link_error)?;
        read.value.map(|record| text(code, record.value.as_bytes())).transpose()
    }

    async fn probe(&self) -> Result<(), LinkError> {
        let read = self.client.get(PROBE_KEY).level(ReadLevel::Eventual).deadline(EVENTUAL_DEADLINE).await;
        read.map(drop).map_err(link_error)
    }
}

fn text(code: Code, bytes: &[u8]) -> Result<Arc<str>, LinkError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| LinkError::Broken { reason: format!("the target of {code} is not text") })?;
    Ok(text.into())
}

fn link_error(error: Error) -> LinkError {
    match error {
        Error::Unreachable { reason } => LinkError::Unreachable { reason },
        Error::Unknown { reason } => LinkError::Unknown { reason },
        Error::Overloaded { .. } => LinkError::Overloaded { retry_after: OVERLOAD_PAUSE },
        Error::DiskFull => LinkError::Full,
        other => LinkError::Broken { reason: other.to_string() },
    }
}
