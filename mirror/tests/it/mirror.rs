//! A mirror on a thread, and the controller's side of its socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use foreshadow_mirror::{Listen, MirrorError, Options};
use foreshadow_model::wire::{
    CaptureSummary, CopyRules, FromMirror, Routing, ShadowTarget, Summary, ToMirror, Upstream,
};
use foreshadow_model::{
    Agreement, Bytes, Drops, FrontRules, Generation, InstanceId, RedactPolicy, SampleRate, SessionKey,
    SideWindow, Speech, Weight,
};
use tempfile::TempDir;

/// Longer than anything here takes on the slowest machine; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// All summaries of one live together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Total {
    pub(crate) live: SideWindow,
    pub(crate) shadow: SideWindow,
    pub(crate) agreement: Agreement,
    pub(crate) sampled: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) drops: Drops,
    pub(crate) pairs: u64,
    pub(crate) is_ejected: bool,
    pub(crate) upgraded: u64,
    pub(crate) thinned: BTreeMap<String, f64>,
}

/// One conversation with a mirror.
pub(crate) struct Controller {
    stream: BufReader<UnixStream>,
    pub(crate) hello: FromMirror,
    pub(crate) totals: BTreeMap<String, Total>,
    pub(crate) refused: u64,
    pub(crate) capture: CaptureSummary,
}

impl Controller {
    pub(crate) fn connect(socket: &Path) -> Self {
        let start = std::thread::spawn({
            let socket = socket.to_owned();
            move || {
                loop {
                    match UnixStream::connect(&socket) {
                        Ok(stream) => return stream,
                        Err(_) => std::thread::yield_now(),
                    }
                }
            }
        });
        let stream = start.join().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        let hello = receive(&mut stream).expect("a hello");
        Self { stream, hello, totals: BTreeMap::new(), refused: 0, capture: CaptureSummary::default() }
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        match self.hello {
            FromMirror::Hello { listen, .. } => listen,
            FromMirror::Summary { .. } => panic!("a conversation starts with hello"),
        }
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// Says as much of it as the mirror listens to.
    pub(crate) fn say_what_is_taken(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).ok();
    }

    pub(crate) fn send(&mut self, message: &ToMirror) {
        let mut line = serde_json::to_vec(message).unwrap();
        line.push(b'\n');
        self.say(&line);
    }

    /// Sends a routing without waiting for it.
    pub(crate) fn offer(&mut self, routing: &Routing) {
        self.send(&ToMirror::Route { routing: Box::new(routing.clone()) });
    }

    /// Sends a routing and waits until it is in force, for two summaries so that the workers have it as well.
    pub(crate) fn route(&mut self, routing: &Routing) {
        self.offer(routing);
        for _ in 0..2 {
            while self.summary().expect("the mirror goes on").generation < routing.generation {}
        }
    }

    pub(crate) fn drain(&mut self) {
        self.send(&ToMirror::Drain { within: PATIENCE });
    }

    /// The next summary, added to the totals; `None` when the conversation is over.
    pub(crate) fn summary(&mut self) -> Option<Summary> {
        let FromMirror::Summary { summary } = receive(&mut self.stream)? else {
            panic!("only one hello a conversation");
        };
        self.refused += summary.refused;
        if let Some(capture) = &summary.capture {
            self.capture.merge(capture);
        }
        for seen in &summary.upstreams {
            let total = self.totals.entry(seen.live.to_string()).or_default();
            total.live.merge(&seen.live_side);
            total.shadow.merge(&seen.shadow_side);
            total.agreement.merge(&seen.agreement);
            total.drops.merge(&seen.drops);
            total.sampled += seen.sampled;
            total.copied_bytes += seen.copied_bytes;
            total.pairs += u64::from(seen.paired.n);
            total.is_ejected = seen.ejected;
            total.upgraded += seen.upgraded;
            total.thinned.clone_from(&seen.thinned);
        }
        Some(*summary)
    }

    /// Reads summaries until the totals of the first live are as wanted.
    pub(crate) fn wait(&mut self, wanted: impl Fn(&Total) -> bool) -> Total {
        self.wait_for("live-1", wanted)
    }

    /// Reads summaries until what was seen of the wire is as wanted.
    pub(crate) fn wait_to_see(&mut self, wanted: impl Fn(&CaptureSummary) -> bool) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if wanted(&self.capture) {
                return;
            }
            self.summary().expect("the mirror goes on");
        }
        panic!("never came to it: {:?}", self.capture);
    }

    pub(crate) fn wait_for(&mut self, live: &str, wanted: impl Fn(&Total) -> bool) -> Total {
        // A summary comes every 20 ms.
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(total) = self.totals.get(live).filter(|total| wanted(total)) {
                return total.clone();
            }
            self.summary().expect("the mirror goes on");
        }
        panic!("never came to it: {:?}", self.totals);
    }
}

fn receive(stream: &mut BufReader<UnixStream>) -> Option<FromMirror> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) => None,
        Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

/// A mirror on a thread of its own. Drained and joined when dropped.
pub(crate) struct Mirror {
    pub(crate) controller: Controller,
    pub(crate) socket: PathBuf,
    thread: Option<JoinHandle<Result<(), MirrorError>>>,
    _dir: TempDir,
}

impl Mirror {
    pub(crate) fn start() -> Self {
        Self::listening(Listen::At("127.0.0.1:0".parse().unwrap()))
    }

    pub(crate) fn listening(listen: Listen) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mirror.sock");
        let options = Options { listen, socket: socket.clone(), workers: 1 };
        let thread = std::thread::spawn(move || foreshadow_mirror::run(&options));
        let controller = Controller::connect(&socket);
        Self { controller, socket, thread: Some(thread), _dir: dir }
    }

    /// A mirror with this routing in force.
    pub(crate) fn routing(routing: &Routing) -> Self {
        let mut mirror = Self::start();
        mirror.controller.route(routing);
        mirror
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.controller.listen()
    }

    pub(crate) fn wait(&mut self, wanted: impl Fn(&Total) -> bool) -> Total {
        self.controller.wait(wanted)
    }

    /// Waits for the end of a mirror that was told to drain.
    pub(crate) fn join(&mut self) {
        let thread = self.thread.take().expect("joined once");
        thread.join().unwrap().unwrap();
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if self.thread.take().is_some_and(|thread| !thread.is_finished()) {
            // Not joined: a failing test must not hang on a connection that it still holds.
            if let Ok(mut stream) = UnixStream::connect(&self.socket) {
                let line = serde_json::to_string(&ToMirror::Drain { within: Duration::ZERO }).unwrap();
                stream.write_all(format!("{line}\n").as_bytes()).ok();
            }
        }
    }
}

/// A routing with a summary every 20 ms and copies that may take 200 ms.
pub(crate) fn routing(generation: u64, upstreams: Vec<Upstream>) -> Routing {
    Routing {
        generation: Generation(generation),
        upstreams,
        front: FrontRules::default(),
        copies: CopyRules {
            copies_per_second: u32::MAX,
            copied_per_second: Bytes::mebi(1 << 20),
            time_per_second: None,
            queue: 1024,
            queue_bytes: Bytes::mebi(4),
            copy_bytes: Bytes::new(16 << 10),
            shadow_timeout: Duration::from_millis(200),
            session: SessionKey::Connection,
            redact: RedactPolicy::default(),
            routes: Vec::new(),
            compare_bodies: false,
        },
        summary_every: Duration::from_millis(20),
    }
}

/// A live of full weight without a shadow.
pub(crate) fn live(number: u32, address: SocketAddr) -> Upstream {
    Upstream {
        id: InstanceId::live(number),
        address,
        speech: Speech::default(),
        weight: Weight::FULL,
        shadow: None,
        sample_rate: SampleRate::NONE,
    }
}

/// The same live with a shadow that gets this share.
pub(crate) fn shadowed(live: Upstream, shadow: SocketAddr, share: f64) -> Upstream {
    let target =
        ShadowTarget { id: live.id.shadow_of(), address: shadow, netns: None, speech: Speech::default() };
    Upstream { shadow: Some(target), sample_rate: SampleRate::clamped(share), ..live }
}

/// A mirror in front of one live, all of whose requests are copied to one shadow.
pub(crate) fn pair(live_at: SocketAddr, shadow_at: SocketAddr) -> Mirror {
    Mirror::routing(&routing(1, vec![shadowed(live(1, live_at), shadow_at, 1.0)]))
}
