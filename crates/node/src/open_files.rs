//! How many files and connections this process may have open, and what part of them is for connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Connections at one port at a time, where the process may have that many files open.
const CONNECTIONS_MAX: u64 = 4096;
/// And the least: fewer would not do for the other nodes and a few clients.
const CONNECTIONS_MIN: u64 = 32;
/// The part of its descriptors that the process has for one port: there are three, and the store has files.
const PORT_PART: u64 = 5;

/// Takes as many descriptors as the system allows this user, and says how many connections each port may have at a time.
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

/// None is no limit.
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
    fn what_the_system_allows_is_taken() {
        let before = getrlimit(Resource::Nofile);
        claim();
        let after = getrlimit(Resource::Nofile);
        assert_eq!((after.current, after.maximum), (before.maximum, before.maximum));
    }
}
