//! What an address that isn't Ceph's looks like, by its first bytes.

/// What is said of whom, by what it begins with.
const KNOWN: &[(&[u8], &str)] = &[
    (b"SSH-", "an SSH server"),
    (b"HTTP/", "an HTTP server"),
    (b"<!DOCTYPE", "an HTTP server"),
    (b"<html", "an HTTP server"),
    // An alert, or a handshake, of SSL 3 up to TLS 1.3.
    (b"\x15\x03", "a TLS server"),
    (b"\x16\x03", "a TLS server"),
    (b"220", "an FTP or SMTP server"),
    (b"* OK", "an IMAP server"),
    (b"+OK", "a POP3 server"),
    (b"-ERR", "a Redis server"),
    (b"RFB ", "a VNC server"),
    (b"AMQP", "an AMQP broker"),
];

/// What begins with these bytes, if we know of such.
pub(super) fn looks_like(first: &[u8]) -> Option<&'static str> {
    if is_http2(first) {
        return Some("an HTTP/2 server");
    }
    KNOWN.iter().find(|(prefix, _)| first.starts_with(prefix)).map(|(_, name)| *name)
}

/// A SETTINGS frame (type 4) of stream 0, with which a server of HTTP/2 begins (RFC 9113, 3.4).
fn is_http2(first: &[u8]) -> bool {
    matches!(first, [0, _, len, 4, 0 | 1, 0, 0, 0, 0, ..] if len % 6 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_known_by_their_first_bytes() {
        for (first, expected) in [
            (b"SSH-2.0-OpenSSH_9.2p1\r\n".as_slice(), Some("an SSH server")),
            (b"HTTP/1.1 400 Bad Request\r\n", Some("an HTTP server")),
            (b"\x15\x03\x01\x00\x02\x02\x46", Some("a TLS server")),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80", Some("an HTTP/2 server")),
            (b"\0\0\x12", None),
            (b"SS", None),
            (b"", None),
        ] {
            assert_eq!(looks_like(first), expected, "{}", first.escape_ascii());
        }
    }
}
