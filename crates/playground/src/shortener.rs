//! The shortener's process: its arguments, and whether it is ready.

use std::ffi::OsString;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Kind};
use crate::layout::Layout;

/// The shortener's name among the children.
pub(crate) const SHORTENER: &str = "shortener";

/// The arguments that start the shortener on this address.
pub(crate) fn args(layout: &Layout, address: &str) -> Vec<OsString> {
    let endpoints = layout.endpoints().join(",");
    ["shortener", "--listen", address, "--endpoints", &endpoints, "--log-format", "text"].map(OsString::from).to_vec()
}

/// Checks that the shortener reports itself ready.
pub(crate) async fn check_ready(address: &str, within: Duration) -> Result<(), Error> {
    let unreachable = || Error::new(Kind::Unreachable, format!("{address} is unreachable"));
    let answer = timeout(within, get(address, "/readyz")).await.map_err(|_| unreachable())?;
    let answer = answer.map_err(|error| unreachable().why(error))?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(Error::new(Kind::Unreachable, "the shortener is not ready").why(answer)),
    }
}

/// The smallest HTTP client that can ask for a status.
async fn get(address: &str, path: &str) -> std::io::Result<String> {
    const ANSWER_BYTES_MAX: u64 = 16 << 10;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::layout::Shape;

    /// The command line of the binary parses this very line in its own test.
    #[test]
    fn the_shortener_is_started_with_the_arguments_a_user_would_type() {
        let shape = Shape { nodes: 2, shards: 16, port_base: 7100, added: 0 };
        let layout = Layout::new(Path::new("/p"), shape, Some(8080), true).unwrap();
        let args = args(&layout, "127.0.0.1:8080");
        let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(
            words.join(" "),
            "shortener --listen 127.0.0.1:8080 --endpoints 127.0.0.1:7100,127.0.0.1:7110 --log-format text"
        );
    }
}
