//! A network namespace for a shadow: a loopback, and no way out but the targets that are allowed by name.
//!
//! An allowed target is reached through a listener *inside* the namespace, at the target's own address (added to the
//! namespace's loopback), whose connections the controller carries to the real target. So the service needs no other
//! configuration, and whatever is not on the list has no route.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::LinkUnspec;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;

/// Makes a namespace with its loopback up, kept by a mount on the file `path`, and listens inside it at `addresses`.
///
/// # Errors
/// Most often for want of privileges; nothing stays behind then but an empty file.
pub(crate) fn create(path: &Path, addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    remove(path)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    let (path, addresses) = (path.to_path_buf(), addresses.to_vec());
    on_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &path, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(bring_up_loopback(&addresses)).map_err(io::Error::other)?;
        addresses.iter().map(TcpListener::bind).collect()
    })
}

/// Lets go of a namespace; it ends with its last process. One that is not there is a success.
///
/// # Errors
/// When the file cannot be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    // Fails where nothing is mounted, which is what is wanted.
    umount2(path, MntFlags::MNT_DETACH).ok();
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether this process may make network namespaces at all.
pub(crate) fn is_possible() -> bool {
    on_own_thread(|| unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)).is_ok()
}

async fn bring_up_loopback(addresses: &[SocketAddr]) -> Result<(), rtnetlink::Error> {
    let (connection, handle, _messages) =
        rtnetlink::new_connection().map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let tasks = TaskTracker::new();
    tasks.spawn(connection);
    handle.link().set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute().await?;
    for address in addresses.iter().map(SocketAddr::ip).filter(|address| !address.is_loopback()) {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        handle.address().add(LOOPBACK, address, prefix).replace().execute().await?;
    }
    Ok(())
}

/// Connects to a port on the loopback of a namespace (or of the host), without waiting longer than the runtime's caller.
///
/// # Errors
/// Those of connecting.
pub(crate) async fn connect(port: u16, netns: Option<&Path>) -> io::Result<TcpStream> {
    let address = SocketAddr::from((IpAddr::from([127, 0, 0, 1]), port));
    let Some(path) = netns else { return TcpStream::connect(address).await };
    let there = File::open(path)?;
    // On a thread of its own: a pool thread that failed to come back would be lost to everybody.
    let socket: std::net::TcpStream = on_own_thread(move || {
        setns(&there, CloneFlags::CLONE_NEWNET)?;
        Ok(Socket::new(Domain::IPV4, Type::STREAM, None)?.into())
    })?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpSocket::from_std_stream(socket).connect(address).await
}

fn on_own_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    thread::spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
}

/// Carries connections from a listener inside a namespace to the real target, until cancelled.
pub(crate) fn forward(
    listener: TcpListener,
    target: String,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tasks = tasks.clone();
    Ok(async move {
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((mut inside, _)) = accepted else { continue };
            let (target, cancel) = (target.clone(), cancel.clone());
            tasks.spawn(async move {
                let carry = async {
                    let mut outside = TcpStream::connect(&target).await?;
                    tokio::io::copy_bidirectional(&mut inside, &mut outside).await
                };
                tokio::select! {
                    () = cancel.cancelled() => {}
                    result = carry => if let Err(error) = result {
                        tracing::debug!(%error, target, "Allowed egress connection ended");
                    },
                }
            });
        }
    })
}
