//! A network namespace for a shadow: a loopback, and no way out but the targets that are allowed by name.
//!
//! An allowed target is reached through a listener *inside* the namespace, at the target's own address (added to the
//! namespace's loopback), whose connections the controller carries to the real target. So the service needs no other
//! configuration, and whatever is not on the list has no route.

use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::LinkUnspec;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of one shadow to one target at a time; more wait.
const CONNECTIONS_MAX: usize = 256;

/// How long after a failed accept it is tried again: most often there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;

/// One listener per address; `None` for an IPv6 address on a machine without IPv6.
pub(crate) type Listeners = Vec<Option<TcpListener>>;

/// Makes a namespace with its loopback up, kept by a mount on the file `path`, and listens inside it at `addresses`.
///
/// # Errors
/// Most often for want of privileges; nothing stays behind then.
pub(crate) fn create(path: &Path, addresses: &[SocketAddr]) -> io::Result<Listeners> {
    remove(path)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    let (there, addresses) = (path.to_path_buf(), addresses.to_vec());
    let created = on_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        mount(Some("/proc/thread-self/ns/net"), &there, None::<&Path>, MsFlags::MS_BIND, None::<&Path>)?;
        listen_here(&addresses)
    });
    if created.is_err() {
        remove(path)?;
    }
    created
}

/// Listens at `addresses` inside a namespace that is there, as [`create`] does.
///
/// # Errors
/// When there is none at `path`, or somebody listens there already.
pub(crate) fn listen(path: &Path, addresses: &[SocketAddr]) -> io::Result<Listeners> {
    let (there, addresses) = (File::open(path)?, addresses.to_vec());
    on_own_thread(move || {
        setns(&there, CloneFlags::CLONE_NEWNET)?;
        listen_here(&addresses)
    })
}

fn listen_here(addresses: &[SocketAddr]) -> io::Result<Listeners> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(bring_up_loopback(addresses)).map_err(io::Error::other)?;
    let listen = |address: &SocketAddr| match TcpListener::bind(address) {
        Err(_) if address.is_ipv6() => Ok(None),
        other => other.map(Some),
    };
    addresses.iter().map(listen).collect()
}

/// Whether a process is in the namespace kept at `path`.
pub(crate) fn holds(path: &Path, pid: u32) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let of_process = identity(Path::new(&format!("/proc/{pid}/ns/net")));
    of_process.is_some() && of_process == identity(path)
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

/// Whether this process may make the namespaces of a shadow.
pub(crate) fn is_possible() -> bool {
    let all = CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    on_own_thread(move || unshare(all).map_err(io::Error::from)).is_ok()
}

async fn bring_up_loopback(addresses: &[SocketAddr]) -> Result<(), rtnetlink::Error> {
    let (connection, handle, _messages) =
        rtnetlink::new_connection().map_err(|error| rtnetlink::Error::NamespaceError(error.to_string()))?;
    let tasks = TaskTracker::new();
    tasks.spawn(connection);
    handle.link().set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute().await?;
    for address in addresses.iter().map(SocketAddr::ip).filter(|address| !address.is_loopback()) {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        match handle.address().add(LOOPBACK, address, prefix).replace().execute().await {
            Err(error) if address.is_ipv6() => tracing::debug!(%error, %address, "No IPv6 here"),
            other => other?,
        }
    }
    Ok(())
}

/// Connects to a port on the loopback of a namespace (or of the host).
///
/// # Errors
/// Those of connecting.
pub(crate) async fn connect(port: u16, netns: Option<&Path>) -> io::Result<TcpStream> {
    let address = SocketAddr::from((IpAddr::from([127, 0, 0, 1]), port));
    let Some(path) = netns else { return TcpStream::connect(address).await };
    let there = File::open(path)?;
    // On a thread of its own: a pool thread that failed to come back would be lost to everybody.
    let within = move || {
        on_own_thread(move || {
            setns(&there, CloneFlags::CLONE_NEWNET)?;
            Ok(Socket::new(Domain::IPV4, Type::STREAM, None)?.into())
        })
    };
    let socket: std::net::TcpStream =
        tokio::task::spawn_blocking(within).await.map_err(io::Error::other)??;
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
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    Ok(async move {
        loop {
            let next = async {
                // Never closed; when all places are taken the kernel lets connections wait.
                let place = places.clone().acquire_owned().await.ok();
                listener.accept().await.map(|(inside, _)| (inside, place))
            };
            let accepted = tokio::select! {
                () = cancel.cancelled() => return,
                accepted = next => accepted,
            };
            let (mut inside, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, target, "Allowed egress connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
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
                drop(place);
            });
        }
    })
}
