//! The limit of open files, and the share of it that each port may use for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// The most connections of one port, if the limit of open files allows them.
const CONNECTIONS_MAX: u64 = 4096;
/// The fewest connections of one port: the other nodes and a few clients need them.
const CONNECTIONS_MIN: u64 = 32;
/// Each port gets this fraction of the open files: there are three ports, and the store has files.
const PORT_PART: u64 = 5;

/// Raises the limit of open files as far as the system allows, and returns the connections of each
/// port.
pub(crate) fn claim() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            warn!(?current, %error, "the limit of open files stays as it is");
            current
        }
    };
    let connections = connections(most);
    info!(open_files = ?most, connections, "connections at a time at each port");
    connections
}

/// `None` means no limit.
fn connections(open_files: Option<u64>) -> usize {
    let connections = open_files.map_or(CONNECTIONS_MAX, |most| most / PORT_PART);
    usize::try_from(connections.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_leave_descriptors_to_the_store() {
        assert_eq!([Some(1024), Some(1 << 20), None, Some(10)].map(connections), [204, 4096, 4096, 32]);
    }

    #[test]
    fn limit_is_raised_as_far_as_the_system_allows() {
        let before = getrlimit(Resource::Nofile);
        claim();
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (before.maximum, before.maximum));
    }
}
