//! The processes of a measurement. Each ends with its handle.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Processor of load generator and origins, and of what is measured.
pub(crate) const LOAD_CORE: &str = "0";
pub(crate) const PROXY_CORE: &str = "1";

/// Bytes of the answer.
const ANSWER_BYTES: usize = 1024;

/// A running process.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// An nginx that answers everything from memory.
    pub(crate) fn origin(dir: &Path, name: &str) -> anyhow::Result<Self> {
        let body = "x".repeat(ANSWER_BYTES);
        let location = format!("default_type text/plain; return 200 \"{body}\";");
        Self::nginx(dir, name, LOAD_CORE, "", &location)
    }

    /// An nginx that does for a live what the mirror does without copies.
    pub(crate) fn proxy(dir: &Path, live: SocketAddr) -> anyhow::Result<Self> {
        let upstream =
            format!("upstream live {{ server {live}; keepalive 256; keepalive_requests 1000000000; }}");
        let location = "proxy_pass http://live; proxy_http_version 1.1; \
                        proxy_set_header Connection \"\"; proxy_set_header Host $http_host; \
                        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
        Self::nginx(dir, "proxy", PROXY_CORE, &upstream, location)
    }

    fn nginx(dir: &Path, name: &str, core: &str, http: &str, location: &str) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut text = format!(
            "daemon off; master_process off; pid {name}.pid; error_log stderr error;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000000;\n"
        );
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {name}-{kind};")?;
        }
        writeln!(text, "{http}\nserver {{ listen {address} backlog=4096; location / {{ {location} }} }} }}")?;
        let file = dir.join(format!("{name}.conf"));
        std::fs::write(&file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
        let mut command = pinned(core, Path::new("nginx"));
        command.arg("-p").arg(dir).arg("-c").arg(&file);
        Self::start(command, address)
    }

    /// The mirror; returns its control socket as well.
    pub(crate) fn mirror(dir: &Path, binary: &Path) -> anyhow::Result<(Self, PathBuf)> {
        let address = free_address()?;
        let socket = dir.join("mirror.sock");
        let mut command = pinned(PROXY_CORE, binary);
        command.arg("mirror-worker").arg("--listen").arg(address.to_string());
        command.arg("--socket").arg(&socket).args(["--workers", "1"]).env("RUST_LOG", "warn");
        Ok((Self::start(command, address)?, socket))
    }

    fn start(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("failed to start {command:?}"))?;
        let mut server = Self { child, address };
        for _ in 0..250 {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            sleep(Duration::from_millis(20));
        }
        bail!("{command:?} did not listen")
    }

    /// Processor time of all its threads so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            let spent = schedstat.split(' ').next().context("empty schedstat")?;
            sum += spent.parse::<u64>().with_context(|| format!("schedstat says `{spent}`"))?;
        }
        Ok(sum)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

/// Accepts connections and never answers. Ends with the process.
pub(crate) fn frozen() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let held: Vec<TcpStream> = listener.incoming().map_while(Result::ok).collect();
        drop(held);
    });
    Ok(address)
}

/// An address where nobody listens.
pub(crate) fn absent() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A command on one processor.
pub(crate) fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?)
}
