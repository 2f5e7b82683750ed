//! Ports for instances.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// How many ports are looked at before giving up.
const TRIES: u32 = 100;

/// A port nobody listens on and that is not promised to anybody: an instance that starts does not hold its port yet.
///
/// # Errors
/// When there is none.
pub(crate) fn free(promised: &BTreeSet<u16>) -> io::Result<u16> {
    for _ in 0..TRIES {
        let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?.local_addr()?.port();
        if !promised.contains(&port) {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// Whether an instance could listen on it now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promised_port_is_not_given_away() {
        let all: BTreeSet<u16> = (0..=u16::MAX).collect();
        assert_eq!(free(&all).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }
}
