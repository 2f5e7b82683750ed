//! Connecting from within a shadow's network namespace.
//!
//! A shadow has no way out and no way in but this one: a socket belongs to the namespace its thread was in when the
//! socket was made, and stays there. So the shadow thread steps in, makes a socket, steps out, and the connection is
//! the only thing that ever crosses. No addresses, no routes, no firewall rules to get wrong.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// How long a connection may be quiet before the kernel asks.
const QUIET: Duration = Duration::from_secs(60);

/// Connects to `address`, from within `netns` if there is one.
pub(crate) async fn connect(address: SocketAddr, netns: Option<&Path>) -> io::Result<TcpStream> {
    let stream = match netns {
        None => TcpStream::connect(address).await?,
        Some(path) => socket_within(path, address)?.connect(address).await?,
    };
    stream.set_nodelay(true)?;
    notice_who_is_gone(&stream)?;
    Ok(stream)
}

/// Lets the kernel find out whether the other side is still there where nothing is said for long, in a tunnel above all: a
/// host that is gone says nothing.
pub(crate) fn notice_who_is_gone(stream: &TcpStream) -> io::Result<()> {
    let keep = TcpKeepalive::new().with_time(QUIET).with_interval(QUIET / 4).with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keep)
}

/// Never awaits between the two steps, so no other task of this thread runs inside the namespace.
fn socket_within(netns: &Path, address: SocketAddr) -> io::Result<TcpSocket> {
    within(Some(netns), || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })
}

/// Makes something within a network namespace, or here without one.
pub(crate) fn within<T>(netns: Option<&Path>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(netns) = netns else { return make() };
    let home = File::open("/proc/thread-self/ns/net")?;
    let there = File::open(netns)?;
    setns(&there, CloneFlags::CLONE_NEWNET)?;
    let made = make();
    // Left inside a namespace without routes, this thread could reach nothing but that shadow: report and go on
    // would hide it, so the error stands for what was made as well.
    setns(&home, CloneFlags::CLONE_NEWNET)?;
    made
}
