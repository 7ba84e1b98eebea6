//! Network addresses as operators write them: `host:port`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The longest DNS name, in bytes (RFC 1035, section 2.3.4, without the root's dot).
const HOST_BYTES_MAX: usize = 253;

/// A `host:port`: a DNS name, an IPv4 address or an IPv6 address in brackets, and a port.
///
/// Parsing checks the syntax and resolves nothing. Schemes, paths and user names are refused. The
/// parsed address displays as it was written, except that an IPv6 host gets its canonical form.
///
/// # Invariants
/// * The host is an IPv6 address, or 1 to 253 ASCII letters, digits, `-`, `_` and `.`.
/// * An address from [`str::parse`] has a port from 1 to 65535; only [`HostPort::parse_listen`]
///   accepts port 0.
///
/// ```
/// # use quorate_types::HostPort;
/// let address: HostPort = "[::1]:7100".parse()?;
/// assert_eq!((address.host(), address.port()), ("::1", 7100));
/// assert_eq!(address.to_string(), "[::1]:7100");
/// # Ok::<(), quorate_types::HostPortError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// The reason why a text is not a `host:port`. The message quotes the text and names the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// There is no colon between host and port.
    #[error("'{}' is not host:port", .0.escape_debug())]
    Format(String),
    /// The host is empty.
    #[error("'{}' has no host; write host:port", .0.escape_debug())]
    NoHost(String),
    /// The host is longer than any DNS name.
    #[error("'{}' has too long a host; in host:port, a host has at most {HOST_BYTES_MAX} bytes", .0.escape_debug())]
    HostTooLong(String),
    /// The host has a character that no DNS name or address has: a scheme, a path, a user name.
    #[error("'{}' has a character that no host name has; write host:port, without scheme or path", .0.escape_debug())]
    HostCharacter(String),
    /// An IPv6 address stands without brackets.
    #[error("'{}' needs brackets around its IPv6 address, such as [::1]:7100; write host:port", .0.escape_debug())]
    BareIpv6(String),
    /// The brackets hold something else than an IPv6 address.
    #[error("'{}' has no valid IPv6 address in its brackets; write host:port, such as [::1]:7100", .0.escape_debug())]
    BadIpv6(String),
    /// The port is not a number from 1 to 65535.
    #[error("'{}' has no port from 1 to 65535; write host:port", .0.escape_debug())]
    Port(String),
}

impl HostPort {
    /// The host: a DNS name, an IPv4 address, or an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Parses an address to listen on. Accepts port 0, for which the operating system picks a free
    /// port.
    pub fn parse_listen(text: &str) -> Result<HostPort, HostPortError> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| HostPortError::Format(text.to_owned()))?;
        let host = parse_host(host, text)?;
        // `u16::from_str` accepts a sign.
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits => Ok(HostPort { host, port }),
            _ => Err(HostPortError::Port(text.to_owned())),
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let address = HostPort::parse_listen(text)?;
        if address.port == 0 {
            return Err(HostPortError::Port(text.to_owned()));
        }
        Ok(address)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Checks the host of the address `whole`, and removes the brackets of an IPv6 address.
fn parse_host(host: &str, whole: &str) -> Result<String, HostPortError> {
    let whole = || whole.to_owned();
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = inside.parse().map_err(|_| HostPortError::BadIpv6(whole()))?;
        return Ok(address.to_string());
    }
    if host.is_empty() {
        return Err(HostPortError::NoHost(whole()));
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(HostPortError::BareIpv6(whole()));
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(HostPortError::HostTooLong(whole()));
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(HostPortError::HostCharacter(whole()));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, IPv4 and bracketed IPv6 addresses parse, and display as they were written.
    #[test]
    fn valid_addresses_round_trip() {
        for text in [
            "127.0.0.1:7100",
            "localhost:1",
            "node-1.example:65535",
            "quorate_node_1:7100",
            "[::1]:7100",
            "[fe80::1]:1",
        ] {
            let address: HostPort = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(HostPort::parse_listen(text), Ok(address));
        }
        assert_eq!("[0:0::1]:07100".parse::<HostPort>().unwrap().to_string(), "[::1]:7100");
    }

    /// Each kind of mistake has its own error, and every message tells the reader the form.
    #[test]
    fn each_mistake_has_its_own_error() {
        type Error = fn(String) -> HostPortError;
        let cases: [(Error, &[&str]); 6] = [
            (HostPortError::Format, &["", "localhost", "["]),
            (HostPortError::NoHost, &[":7100"]),
            (
                HostPortError::HostCharacter,
                &["http://host:1", "a b:1", "host/x:1", "u@h:1", "a?:1", "h\u{e9}:1", "[::1:7", "a:b:1", "\n:1"],
            ),
            (HostPortError::BareIpv6, &["::1:7100"]),
            (HostPortError::BadIpv6, &["[]:1", "[host]:1", "[127.0.0.1]:1"]),
            (HostPortError::Port, &["host:", "host:0", "host:65536", "host:x", "host:+1", "host:1/x", "host: 1"]),
        ];
        for (error, texts) in cases {
            for text in texts {
                let refusal = text.parse::<HostPort>().unwrap_err();
                assert_eq!(refusal, error((*text).to_owned()), "{text:?}");
                assert!(refusal.to_string().contains("host:port"), "{refusal}");
            }
        }
        let long = format!("{}:1", "h".repeat(254));
        assert_eq!(long.parse::<HostPort>(), Err(HostPortError::HostTooLong(long)));
    }

    #[test]
    fn only_an_address_to_listen_on_may_have_port_0() {
        assert_eq!(HostPort::parse_listen("127.0.0.1:0").unwrap().port(), 0);
        assert!("127.0.0.1:0".parse::<HostPort>().is_err());
        assert!(HostPort::parse_listen("127.0.0.1").is_err());
    }
}
