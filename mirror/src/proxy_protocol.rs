//! The header of the PROXY protocol, with which a balancer before us says who its client is.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, versions 1 and 2. Where it is expected every
//! connection must begin with it, or anybody could claim to be somebody else.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of version 2 before those that it tells the number of.
const HEAD_BYTES: usize = 16;

/// The longest header of version 1, end of line included.
const LINE_BYTES_MAX: usize = 107;

/// The longest header of version 2 that is read: addresses take 216 bytes, and what may stand behind them is skipped.
const BYTES_MAX: usize = 4 << 10;

/// Reads the header and not a byte more. Returns the client it names; `None` where it names none: the balancer itself
/// asks, or does not know.
pub(crate) async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; SIGNATURE.len()];
    stream.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(HEAD_BYTES, 0);
        stream.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let more = usize::from(u16::from_be_bytes([header[HEAD_BYTES - 2], header[HEAD_BYTES - 1]]));
        if BYTES_MAX < HEAD_BYTES + more {
            return Err(no_header());
        }
        header.resize(HEAD_BYTES + more, 0);
        stream.read_exact(&mut header[HEAD_BYTES..]).await?;
    } else {
        while !header.ends_with(b"\r\n") {
            if header.len() == LINE_BYTES_MAX || !header.starts_with(b"PROXY ") {
                return Err(no_header());
            }
            header.push(stream.read_u8().await?);
        }
    }
    client(&header)
}

/// The client that a whole header names.
fn client(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    if header.starts_with(SIGNATURE) {
        let header = v2::Header::try_from(header).map_err(|_odd| no_header())?;
        if header.command == v2::Command::Local {
            return Ok(None);
        }
        return Ok(match header.addresses {
            v2::Addresses::IPv4(ends) => Some(address(ends.source_address, ends.source_port)),
            v2::Addresses::IPv6(ends) => Some(address(ends.source_address, ends.source_port)),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        });
    }
    let header = v1::Header::try_from(header).map_err(|_odd| no_header())?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ends) => Some(address(ends.source_address, ends.source_port)),
        v1::Addresses::Tcp6(ends) => Some(address(ends.source_address, ends.source_port)),
        v1::Addresses::Unknown => None,
    })
}

fn address(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn no_header() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "expected a header of the PROXY protocol")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of these bytes, and how many are left for whoever reads on.
    fn read_all(mut bytes: &[u8]) -> (io::Result<Option<SocketAddr>>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = runtime.block_on(read(&mut bytes));
        (client, bytes.len())
    }

    fn client_of(bytes: &[u8]) -> Option<String> {
        let (client, left) = read_all(&[bytes, b"GET /"].concat());
        assert_eq!(left, 5, "not a byte of the request is taken");
        client.unwrap().map(|client| client.to_string())
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[0x20 | command, family], &length, rest].concat()
    }

    #[test]
    fn both_versions_name_the_client() {
        assert_eq!(client_of(b"PROXY TCP4 192.0.2.7 192.0.2.1 5555 80\r\n").unwrap(), "192.0.2.7:5555");
        assert_eq!(client_of(b"PROXY TCP6 2001:db8::7 ::1 5555 80\r\n").unwrap(), "[2001:db8::7]:5555");
        let ends = [192, 0, 2, 7, 192, 0, 2, 1, 0x15, 0xb3, 0, 80];
        assert_eq!(client_of(&v2(1, 0x11, &ends)).unwrap(), "192.0.2.7:5555");
        let more = [&ends[..], &[4, 0, 1, 0]].concat();
        assert_eq!(client_of(&v2(1, 0x11, &more)).unwrap(), "192.0.2.7:5555", "extensions are skipped");
    }

    #[test]
    fn a_balancer_that_asks_for_itself_or_does_not_know_names_nobody() {
        assert_eq!(client_of(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(client_of(&v2(0, 0, &[])), None);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        let all: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"PROXY TCP4 192.0.2.7\r\n      ",
            b"PROXY TCP4 192.0.2.300 192.0.2.1 5555 80\r\n",
            long.as_bytes(),
            &v2(1, 0x11, &[0; 4]),
            &[&SIGNATURE[..], &[0x21, 0x11, 0xff, 0xff]].concat(),
        ];
        for bytes in all {
            assert!(read_all(bytes).0.is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), is_v2 in any::<bool>()) {
            let start: &[u8] = if is_v2 { SIGNATURE } else { b"PROXY " };
            drop(read_all(&[start, &bytes].concat()));
        }
    }
}
