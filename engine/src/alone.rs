//! A mirror without a controller: a file says what it does, and is read again at every `SIGHUP`.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foreshadow_config::{Alone, AloneLive, Source};
use foreshadow_mirror::log::FormatError;
use foreshadow_mirror::{
    Destination, DestinationError, Lead, Listen, LogRules, MirrorError, Options, Running, prepare,
};
use foreshadow_model::wire::{Routing, ShadowTarget, Summary, Upstream};
use foreshadow_model::{Generation, InstanceId, Speech, with_causes};
use foreshadow_serve::MirrorTotals;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// How long the mirror before this one may take to give the address of its metrics away.
const METRICS_FREE_WITHIN: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// Why a mirror could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// The address of a live or a shadow leads nowhere.
    #[error("failed to find `lives[{place}].{key}`")]
    Destination {
        /// Which live, from 0 on.
        place: usize,
        /// Whose address.
        key: &'static str,
        /// Why.
        source: DestinationError,
    },
    /// The folder of its socket could not be made.
    #[error("failed to make the folder `{}`", path.display())]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Metrics cannot be served.
    #[error("failed to serve metrics at `{address}`")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The log is written in no way that is known.
    #[error("failed to understand `log.format`")]
    Format(#[from] FormatError),
    /// The mirror itself did not come up.
    #[error("failed to start the mirror")]
    Mirror(#[from] MirrorError),
}

/// Who hears of a mirror that stands alone.
pub trait Audience {
    /// The file, read again.
    ///
    /// # Errors
    /// What an operator must know to put it right.
    fn read(&mut self) -> Result<Alone, String>;

    /// It serves there, or reads from the wire.
    fn serves(&mut self, listen: Option<SocketAddr>);

    /// What happened since the last time, and how many requests there were since the start. Signals and the next mirror wait
    /// meanwhile: to be done at once.
    fn hear(&mut self, summary: &Summary, requests: u64);
}

/// The socket by which the next mirror takes this one's place.
#[must_use]
pub fn mirror_socket(config: &Alone) -> PathBuf {
    let name = match &config.source {
        Source::Proxy { listen } => listen.to_string().replace([':', '[', ']'], "-"),
        // Several may have the same folder.
        Source::Capture(rules) => {
            format!("capture-{:016x}", number_of((&rules.interface, &rules.namespace)))
        }
        Source::Log { file, .. } => format!("log-{:016x}", number_of(file)),
    };
    config.state.join(format!("mirror-{name}.sock"))
}

/// A number that is the same in every process of this program.
fn number_of(what: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(what)
}

/// Runs a mirror until it is told to end.
///
/// # Errors
/// When it cannot be started.
pub fn mirror_alone(config: &Alone, running: Running, audience: &mut dyn Audience) -> Result<(), AloneError> {
    let routing = routing(config)?;
    let make = |path: &Path| std::fs::create_dir_all(path);
    make(&config.state).map_err(|source| AloneError::State { path: config.state.clone(), source })?;
    let options = Options {
        listen: match &config.source {
            Source::Proxy { listen } => Listen::At(*listen),
            Source::Capture(rules) => Listen::Wire(rules.clone()),
            Source::Log { file, format } => {
                Listen::Log(LogRules { file: file.clone(), format: format.parse()? })
            }
        },
        socket: mirror_socket(config),
        workers: config.workers.map_or_else(workers, |n| usize::try_from(n).unwrap_or(1)),
    };
    let prepared = prepare(&options, routing, running)?;
    let totals = Arc::new(Mutex::new(MirrorTotals::default()));
    let cancel = CancellationToken::new();
    let metrics = config.metrics.map(|address| {
        let patience = if prepared.is_successor() { METRICS_FREE_WITHIN } else { Duration::ZERO };
        metrics(address, patience, &totals, &cancel)
    });
    let metrics = metrics.transpose()?;
    let mut lead = FromFile { audience, totals, source: config.source.clone(), cancel: cancel.clone() };
    let result = prepared.run(&mut lead);
    cancel.cancel();
    if metrics.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("The thread of the metrics panicked");
    }
    Ok(result?)
}

/// One thread less than there are processors: the shadows are served by another one.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1)).max(1)
}

/// Serves metrics on a thread of their own: whoever scrapes takes nothing from users. The one before may take a while to
/// give their address away.
fn metrics(
    address: SocketAddr,
    patience: Duration,
    totals: &Arc<Mutex<MirrorTotals>>,
    cancel: &CancellationToken,
) -> Result<std::thread::JoinHandle<()>, AloneError> {
    let failed = |source| AloneError::Metrics { address, source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (totals, cancel) = (totals.clone(), cancel.clone());
    let first = runtime.block_on(TcpListener::bind(address));
    let first = match first {
        Err(source) if patience.is_zero() => return Err(failed(source)),
        first => first,
    };
    let serve = async move {
        let listener = match first {
            Ok(listener) => listener,
            Err(_taken) => bind_within(address, patience).await?,
        };
        foreshadow_serve::serve_mirror(listener, totals, cancel).await
    };
    let serve = move || {
        if let Err(error) = runtime.block_on(serve) {
            tracing::error!(%error, "Metrics are not served");
        }
    };
    std::thread::Builder::new().name("metrics".into()).spawn(serve).map_err(failed)
}

async fn bind_within(address: SocketAddr, patience: Duration) -> io::Result<TcpListener> {
    let until = Instant::now() + patience;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if until <= Instant::now() => return Err(error),
            Err(_taken) => sleep(LOOK).await,
            bound => return bound,
        }
    }
}

struct FromFile<'a> {
    audience: &'a mut dyn Audience,
    cancel: CancellationToken,
    totals: Arc<Mutex<MirrorTotals>>,
    /// Where requests were taken from at the start.
    source: Source,
}

impl Lead for FromFile<'_> {
    fn read(&mut self) -> Result<Routing, String> {
        let config = self.audience.read()?;
        if config.source != self.source {
            return Err("`source`, `listen`, `capture` and `log` are only read at the start: end this mirror and start it again".to_owned());
        }
        routing(&config).map_err(|error| with_causes(&error))
    }

    fn serves(&mut self, listen: Option<SocketAddr>) {
        self.audience.serves(listen);
    }

    fn hear(&mut self, summary: &Summary) {
        let requests = {
            let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.add(summary);
            totals.lives.values().map(|live| live.live.requests).sum()
        };
        self.audience.hear(summary, requests);
    }

    fn drains(&mut self) {
        // The next one serves metrics where this one did.
        self.cancel.cancel();
    }
}

fn routing(config: &Alone) -> Result<Routing, AloneError> {
    let upstreams = config.lives.iter().enumerate().map(|(place, live)| upstream(place, live));
    Ok(Routing {
        generation: Generation(1),
        upstreams: upstreams.collect::<Result<_, _>>()?,
        front: config.mirror.front.clone(),
        copies: config.mirror.clone().into(),
        summary_every: config.report,
    })
}

fn upstream(place: usize, live: &AloneLive) -> Result<Upstream, AloneError> {
    let find = |url: &str, key| {
        let found = Destination::find(url, live.authorities.as_deref())
            .map_err(|source| AloneError::Destination { place, key, source })?;
        Ok::<_, AloneError>((found.address, Speech { http2: live.http2, tls: found.tls }))
    };
    let id = InstanceId::live(u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1));
    let (address, speech) = find(&live.url, "url")?;
    let shadow = match &live.shadow {
        None => None,
        Some(url) => {
            let (address, speech) = find(url, "shadow")?;
            Some(ShadowTarget { id: id.shadow_of(), address, netns: None, speech })
        }
    };
    Ok(Upstream { id, address, speech, weight: live.weight, shadow, sample_rate: live.rate })
}
