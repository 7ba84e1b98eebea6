//! Addresses of nodes: `host:port`.

/// Where a node listens for clients unless it is told otherwise.
pub(crate) const DEFAULT: &str = "127.0.0.1:7100";

/// Checks one `host:port` of a command line. `http://` in front is forgiven; an IPv6 host stands in brackets.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let text = text.trim();
    let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("'{text}' is not host:port, such as {DEFAULT}"));
    };
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(format!("'{text}' names no host; write host:port, such as {DEFAULT}"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!("'{text}': write an IPv6 address in brackets, such as [::1]:7100"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_owned()),
        _ => Err(format!("'{port}' is not a port from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_needed() {
        assert_eq!(parse("a.example:7100").as_deref(), Ok("a.example:7100"));
        assert_eq!(parse(" http://127.0.0.1:2379/ ").as_deref(), Ok("127.0.0.1:2379"));
        assert_eq!(parse("[::1]:7100").as_deref(), Ok("[::1]:7100"));
        for bad in ["", "a", ":7100", "a:", "a:0", "a:65536", "a:x", "::1:7100", "a/b:1", "u@h:1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
