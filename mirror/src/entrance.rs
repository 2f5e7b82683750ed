//! How requests come in: by a socket of our own, from the wire, or from a log.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use foreshadow_model::CaptureRules;

use crate::capture::Capture;
use crate::server::{MirrorError, Shared};
use crate::told::{Log, LogRules};
use crate::{handover, worker};

/// Connections that may wait to be accepted while a mirror is started again; the kernel's own bound may be lower.
const BACKLOG: i32 = 4096;

/// How requests come in.
#[derive(Debug, Clone)]
pub enum Listen {
    /// Users connect to a socket that is opened here.
    At(SocketAddr),
    /// Users connect to a socket that is standard input; see [`crate::handover`].
    Inherited,
    /// Users connect to the lives, and what they say is read from the wire.
    Wire(CaptureRules),
    /// Users connect to the one live, and what they said is what its log says.
    Log(LogRules),
}

/// The address of a mirror that nobody connects to.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The open way in.
pub(crate) enum Entrance {
    Front(TcpListener),
    Wire(Capture),
    Log(Log),
}

impl Entrance {
    /// Opens it.
    pub(crate) fn open(listen: &Listen) -> Result<Self, MirrorError> {
        let front = match listen {
            Listen::At(address) => {
                bind(*address).map_err(|source| MirrorError::Listen { address: *address, source })?
            }
            Listen::Inherited => handover::inherited().map_err(MirrorError::Inherit)?,
            Listen::Wire(rules) => {
                return Capture::open(rules)
                    .map(Self::Wire)
                    .map_err(|source| MirrorError::Capture { place: rules.to_string(), source });
            }
            Listen::Log(rules) => return Log::open(rules).map(Self::Log).map_err(MirrorError::Log),
        };
        front.set_nonblocking(true).map_err(MirrorError::Start)?;
        Ok(Self::Front(front))
    }

    /// Starts what serves users, or reads; returns the threads, and the socket that others may hold as well.
    pub(crate) fn start(
        self,
        shared: &Arc<Shared>,
        is_awaited: bool,
    ) -> Result<(Vec<JoinHandle<()>>, Option<TcpListener>), MirrorError> {
        match self {
            Self::Front(front) => {
                let all = (0..shared.workers).map(|number| worker::start(number, &front, shared, is_awaited));
                let all = all.collect::<io::Result<Vec<_>>>().map_err(MirrorError::Start)?;
                Ok((all, Some(front)))
            }
            Self::Wire(capture) => Ok((vec![capture.start(shared).map_err(MirrorError::Start)?], None)),
            Self::Log(log) => Ok((vec![log.start(shared).map_err(MirrorError::Start)?], None)),
        }
    }
}

/// Opens the socket that users connect to.
///
/// # Errors
/// When the address is taken or may not be used.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let front = TcpListener::bind(address)?;
    // `std` lets 128 wait; said again, the number changes.
    rustix::net::listen(&front, BACKLOG)?;
    Ok(front)
}
