//! Operations: made by a client, refined by their methods, executed when awaited.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use quorate_router::{Error, Router, Written};
use quorate_types::{Condition, Key, Mutation, ReadLevel, Record, Served, Value, Write};

type Doing<T> = Pin<Box<dyn Future<Output = Result<Served<T>, Error>> + Send>>;

/// A read of a key; from [`Client::get`](crate::Client::get). Does nothing until it is awaited.
#[must_use = "a get does nothing until it is awaited"]
#[derive(Clone, Debug)]
pub struct Get {
    router: Router,
    key: Bytes,
    level: ReadLevel,
    deadline: Duration,
}

impl Get {
    pub(crate) fn new(router: Router, key: &[u8], deadline: Duration) -> Self {
        Self { router, key: Bytes::copy_from_slice(key), level: ReadLevel::Strong, deadline }
    }

    /// Sets the consistency of the read. Default: [`ReadLevel::Strong`].
    pub fn level(mut self, level: ReadLevel) -> Self {
        self.level = level;
        self
    }

    /// Sets how long the read may take. Default: the client's deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl IntoFuture for Get {
    type Output = Result<Served<Option<Record>>, Error>;
    type IntoFuture = Doing<Option<Record>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.router.get(key(self.key)?, self.level, self.deadline).await })
    }
}

/// The common part of puts and deletes.
#[derive(Clone, Debug)]
struct Change {
    router: Router,
    key: Bytes,
    condition: Option<Expected>,
    deadline: Duration,
}

/// A condition whose value has not been checked against the limits yet.
#[derive(Clone, Debug)]
enum Expected {
    Absent,
    Exists,
    Version(u64),
    Value(Bytes),
}

impl Change {
    fn new(router: Router, key: &[u8], deadline: Duration) -> Self {
        Self { router, key: Bytes::copy_from_slice(key), condition: None, deadline }
    }

    async fn make(self, mutation: Mutation) -> Result<Served<Written>, Error> {
        let condition = match self.condition {
            None => None,
            Some(Expected::Absent) => Some(Condition::Absent),
            Some(Expected::Exists) => Some(Condition::Exists),
            Some(Expected::Version(version)) => Some(Condition::Version(version)),
            Some(Expected::Value(bytes)) => Some(Condition::Value(value(bytes)?)),
        };
        let write = Write { key: key(self.key)?, mutation, condition };
        self.router.write(write, self.deadline).await
    }
}

/// The methods that puts and deletes share.
macro_rules! conditions {
    () => {
        /// Adds the condition that the key is absent. Replaces an earlier condition.
        pub fn if_absent(mut self) -> Self {
            self.change.condition = Some(Expected::Absent);
            self
        }

        /// Adds the condition that the key has a value. Replaces an earlier condition.
        pub fn if_exists(mut self) -> Self {
            self.change.condition = Some(Expected::Exists);
            self
        }

        /// Adds the condition that the key's record has this version; 0 means that the key is
        /// absent. Replaces an earlier condition.
        pub fn if_version(mut self, version: u64) -> Self {
            self.change.condition = Some(Expected::Version(version));
            self
        }

        /// Adds the condition that the key's value is exactly these bytes. Replaces an earlier
        /// condition.
        pub fn if_value(mut self, value: impl Into<Bytes>) -> Self {
            self.change.condition = Some(Expected::Value(value.into()));
            self
        }

        /// Sets how long the write may take. Default: the client's deadline.
        pub fn deadline(mut self, deadline: Duration) -> Self {
            self.change.deadline = deadline;
            self
        }
    };
}

/// A write of a key's value; from [`Client::put`](crate::Client::put). Does nothing until it is
/// awaited.
#[must_use = "a put does nothing until it is awaited"]
#[derive(Clone, Debug)]
pub struct Put {
    change: Change,
    value: Bytes,
}

impl Put {
    pub(crate) fn new(router: Router, key: &[u8], value: Bytes, deadline: Duration) -> Self {
        Self { change: Change::new(router, key, deadline), value }
    }

    conditions!();
}

impl IntoFuture for Put {
    type Output = Result<Served<Written>, Error>;
    type IntoFuture = Doing<Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.change.make(Mutation::Put(value(self.value)?)).await })
    }
}

/// A deletion of a key; from [`Client::delete`](crate::Client::delete). Does nothing until it is
/// awaited.
#[must_use = "a delete does nothing until it is awaited"]
#[derive(Clone, Debug)]
pub struct Delete {
    change: Change,
}

impl Delete {
    pub(crate) fn new(router: Router, key: &[u8], deadline: Duration) -> Self {
        Self { change: Change::new(router, key, deadline) }
    }

    conditions!();
}

impl IntoFuture for Delete {
    type Output = Result<Served<Written>, Error>;
    type IntoFuture = Doing<Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.change.make(Mutation::Delete))
    }
}

fn key(bytes: Bytes) -> Result<Key, Error> {
    Key::new(bytes).map_err(|error| Error::Invalid { reason: error.to_string() })
}

fn value(bytes: Bytes) -> Result<Value, Error> {
    Value::new(bytes).map_err(|error| Error::Invalid { reason: error.to_string() })
}
