//! Network namespaces of live and shadow, and what stands between them and what they depend on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use foreshadow_probe::burst::Answerer;
use foreshadow_probe::monotonic;
use nix::sched::{CloneFlags, setns};

/// The namespace of one side, with a cable to the host's.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    /// Of the side's end.
    pub(crate) address: IpAddr,
    /// Of the host's end.
    host: IpAddr,
}

impl Namespace {
    /// The `number`th of this run.
    pub(crate) fn new(number: u8) -> anyhow::Result<Self> {
        let name = format!("fsm{}-{number}", std::process::id() % 100_000);
        let (cable, end) = (format!("fm{}h{number}", std::process::id() % 100_000), "eth0");
        let address: IpAddr = format!("10.213.{number}.2").parse()?;
        let host: IpAddr = format!("10.213.{number}.1").parse()?;
        ip(&["netns", "add", &name])?;
        let namespace = Self { name: name.clone(), address, host };
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", end, "netns", &name])?;
        ip(&["addr", "add", &format!("{host}/24"), "dev", &cable])?;
        ip(&["link", "set", &cable, "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{address}/24"), "dev", end])?;
        ip(&["-n", &name, "link", "set", end, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Puts a rule for packets that leave the namespace; removed when dropped.
    pub(crate) fn rule(&self, rule: &str) -> anyhow::Result<Rule> {
        let nft = |arguments: &[&str]| {
            run(Command::new("ip").args(["netns", "exec", &self.name, "nft"]).args(arguments))
        };
        let undo = vec!["nft", "delete", "table", "ip", "matrix"];
        let held = Rule { namespace: self.name.clone(), undo };
        nft(&["add", "table", "ip", "matrix"])?;
        nft(&["add", "chain", "ip", "matrix", "out", "{ type filter hook output priority 0 ; }"])?;
        nft(&["add", "rule", "ip", "matrix", "out", rule])?;
        Ok(held)
    }

    /// Holds every packet that leaves for this long, through a queue to this process.
    pub(crate) fn queue(&self, delay: Duration) -> anyhow::Result<(Rule, Queue)> {
        let (stop, path) = (Arc::new(AtomicBool::new(false)), self.path());
        let (ready, is_ready) = mpsc::channel();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let opened = enter(&path).and_then(|()| open_queue());
            match opened {
                Err(error) => drop(ready.send(Err(error))),
                Ok(queue) => {
                    drop(ready.send(Ok(())));
                    hold(queue, delay, &stopped);
                }
            }
        });
        is_ready.recv().context("the queue's thread ended")??;
        let queue = Queue { stop, thread: Some(thread) };
        // By iptables: kernels are built without the queue of nft and with this one.
        let rule = ["OUTPUT", "-o", "eth0", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"];
        let mut add = vec!["iptables", "-A"];
        add.extend(rule);
        let mut undo = vec!["iptables", "-D"];
        undo.extend(rule);
        let held = Rule { namespace: self.name.clone(), undo };
        run(Command::new("ip").args(["netns", "exec", &self.name]).args(add))?;
        Ok((held, queue))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with it.
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("cannot remove the network namespace: {error:#}");
        }
    }
}

/// A rule in force.
#[derive(Debug)]
pub(crate) struct Rule {
    namespace: String,
    /// The command that takes it away.
    undo: Vec<&'static str>,
}

impl Drop for Rule {
    fn drop(&mut self) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).args(&self.undo);
        if let Err(error) = run(&mut command) {
            eprintln!("cannot remove a rule: {error:#}");
        }
    }
}

/// Packets that are held back.
#[derive(Debug)]
pub(crate) struct Queue {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

fn enter(namespace: &std::path::Path) -> anyhow::Result<()> {
    Ok(setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?)
}

fn open_queue() -> anyhow::Result<nfq::Queue> {
    let mut queue = nfq::Queue::open().context("no NFQUEUE on this kernel")?;
    queue.bind(0).context("no NFQUEUE on this kernel")?;
    queue.set_nonblocking(true);
    Ok(queue)
}

fn hold(mut queue: nfq::Queue, delay: Duration, stop: &AtomicBool) {
    let mut held: VecDeque<(Duration, nfq::Message)> = VecDeque::new();
    while !stop.load(Ordering::Relaxed) || !held.is_empty() {
        while let Ok(message) = queue.recv() {
            held.push_back((monotonic() + delay, message));
        }
        while let Some((due, _)) = held.front()
            && *due <= monotonic()
            && let Some((_, mut message)) = held.pop_front()
        {
            message.set_verdict(nfq::Verdict::Accept);
            queue.verdict(message).unwrap_or_default();
        }
        thread::sleep(Duration::from_micros(500));
    }
    queue.unbind(0).unwrap_or_default();
}

/// What both sides depend on, behind a proxy that can hold back what it passes on to one of them.
#[derive(Debug)]
pub(crate) struct Dependency {
    /// Where both connect.
    pub(crate) port: u16,
    delay_us: Arc<AtomicU64>,
}

impl Dependency {
    /// Answers on all addresses; the delay is for those who come from `delayed`.
    pub(crate) fn start(delayed: IpAddr) -> anyhow::Result<Self> {
        let answerer = Answerer::bind("127.0.0.1:0".parse()?)?;
        let behind = answerer.address()?;
        thread::spawn(move || answerer.serve());
        let listener = TcpListener::bind("0.0.0.0:0")?;
        let port = listener.local_addr()?.port();
        let delay_us = Arc::new(AtomicU64::new(0));
        let delay = delay_us.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let is_delayed = stream.peer_addr().is_ok_and(|peer| peer.ip() == delayed);
                let delay = is_delayed.then(|| delay.clone());
                thread::spawn(move || pass(stream, behind, delay).unwrap_or_default());
            }
        });
        Ok(Self { port, delay_us })
    }

    pub(crate) fn at(&self, namespace: &Namespace) -> SocketAddr {
        (namespace.host, self.port).into()
    }

    /// Holds answers to the delayed side back for this long, until dropped.
    pub(crate) fn delay(&self, delay: Duration) -> Delay {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        Delay(self.delay_us.clone())
    }
}

/// A delay in force.
#[derive(Debug)]
pub(crate) struct Delay(Arc<AtomicU64>);

impl Drop for Delay {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Passes a connection on.
fn pass(user: TcpStream, to: SocketAddr, delay: Option<Arc<AtomicU64>>) -> std::io::Result<()> {
    let origin = TcpStream::connect(to)?;
    user.set_nodelay(true)?;
    origin.set_nodelay(true)?;
    let (mut up_from, mut up_to) = (user.try_clone()?, origin.try_clone()?);
    thread::spawn(move || {
        std::io::copy(&mut up_from, &mut up_to).and_then(|_| up_to.shutdown(std::net::Shutdown::Write))
    });
    let (mut from, mut to) = (origin, user);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return to.shutdown(std::net::Shutdown::Write);
        }
        let delay = delay.as_ref().map_or(0, |delay| delay.load(Ordering::Relaxed));
        if 0 < delay {
            thread::sleep(Duration::from_micros(delay));
        }
        to.write_all(&buffer[..n])?;
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run(Command::new("ip").args(arguments))
}

pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
