//! Finds the process at the other end of a local TCP connection, from `/proc`.
//!
//! `/proc/net/tcp` gives the inode of the socket at the other end, and `/proc/PID/fd` the process
//! that has that socket open.

use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A node, by its place.
    Node(usize),
    /// Another process on this machine.
    Other,
    /// The other end is closed.
    Gone,
}

/// Finds the process that connected from `caller` to `listening` among the nodes' processes.
/// Blocks: it reads `/proc`.
pub(crate) fn owner(caller: SocketAddr, listening: SocketAddr, processes: &[Option<u32>]) -> Owner {
    let (SocketAddr::V4(caller), SocketAddr::V4(listening)) = (caller, listening) else { return Owner::Other };
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let Some(inode) = inode(&sockets, caller, listening) else { return Owner::Gone };
    let link = format!("socket:[{inode}]");
    let has = |process: u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to == Path::new(&link)))
    };
    match processes.iter().position(|process| process.is_some_and(has)) {
        Some(place) => Owner::Node(place),
        None => Owner::Other,
    }
}

/// The inode of the socket with these two ends, in the table of `/proc/net/tcp`; none: it is
/// closed.
fn inode(sockets: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<&str> {
    // The table has the address in the machine's byte order and the port in network order.
    let end = |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let (local, remote) = (end(local), end(remote));
    sockets.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let found = columns.get(1) == Some(&local.as_str()) && columns.get(2) == Some(&remote.as_str());
        columns.get(9).copied().filter(|inode| found && *inode != "0")
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// This process connects to itself: it is found among other processes, is `Other` when it is
    /// not listed, and `Gone` once the connection is closed.
    #[test]
    fn the_owner_of_a_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = listener.local_addr().unwrap();
        let calling = TcpStream::connect(listening).unwrap();
        let (_accepted, caller) = listener.accept().unwrap();
        let own = Some(std::process::id());
        assert_eq!(owner(caller, listening, &[None, Some(1), own]), Owner::Node(2));
        assert_eq!(owner(caller, listening, &[None, None]), Owner::Other);
        drop(calling);
        assert_eq!(owner(caller, listening, &[own]), Owner::Gone);
    }
}
