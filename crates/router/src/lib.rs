//! From an operation to the replica that serves it: map, connections, batches, redirects, retries.
