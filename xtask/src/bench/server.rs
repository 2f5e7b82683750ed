//! The processes of a measurement. Each ends with its handle.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Processor of load generator and origins, and of what is measured.
pub(crate) const LOAD_CORE: &str = "0";
pub(crate) const PROXY_CORE: &str = "1";

/// Bytes of the answer.
const ANSWER_BYTES: usize = 1024;

/// A running process.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where a mirror says what happened.
    pub(crate) report: Option<PathBuf>,
}

impl Server {
    /// An nginx that answers everything from memory.
    pub(crate) fn origin(dir: &Path, name: &str) -> anyhow::Result<Self> {
        Self::answering(dir, name, LOAD_CORE)
    }

    /// The same on another processor.
    pub(crate) fn answering(dir: &Path, name: &str, core: &str) -> anyhow::Result<Self> {
        Self::nginx(dir, name, (core, ""), "", &answer())
    }

    /// The same by HTTP/2 with prior knowledge.
    pub(crate) fn origin_h2(dir: &Path, name: &str) -> anyhow::Result<Self> {
        Self::nginx(dir, name, (LOAD_CORE, "http2"), "", &answer())
    }

    /// An nginx that does for a live what the mirror does; with its own mirror for so many in a hundred requests.
    pub(crate) fn nginx_proxy(
        dir: &Path,
        name: &str,
        live: SocketAddr,
        shadow: Option<(SocketAddr, u32)>,
        listen: &str,
    ) -> anyhow::Result<Self> {
        let kept = |name: &str, to| {
            format!("upstream {name} {{ server {to}; keepalive 256; keepalive_requests 1000000000; }}\n")
        };
        let pass = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; \
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; \
                    proxy_set_header X-Forwarded-Proto $scheme;";
        let (mut http, mut location) = (kept("live", live), format!("proxy_pass http://live; {pass}"));
        if let Some((shadow, share)) = shadow {
            http += &kept("shadow", shadow);
            write!(http, "split_clients $http_x_visitor $copied {{ {share}% 1; * 0; }}")?;
            location = format!(
                "mirror /copy; {location} }} location = /copy {{ internal; if ($copied = 0) {{ return 204; }} \
                 proxy_pass http://shadow$request_uri; {pass}"
            );
        }
        if listen == "ssl" {
            http += "ssl_certificate cert.pem; ssl_certificate_key key.pem;";
        }
        Self::nginx(dir, name, (PROXY_CORE, listen), &http, &location)
    }

    fn nginx(
        dir: &Path,
        name: &str,
        (core, listen): (&str, &str),
        http: &str,
        location: &str,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut text = format!(
            "daemon off; master_process off; pid {name}.pid; error_log stderr error;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; \n"
        );
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {name}-{kind};")?;
        }
        writeln!(
            text,
            "{http}\nserver {{ listen {address} {listen} backlog=4096; location / {{ {location} }} }} }}"
        )?;
        let file = written(dir, &format!("{name}.conf"), &text)?;
        let mut command = pinned(core, Path::new("nginx"));
        command.arg("-p").arg(dir).arg("-c").arg(file);
        Self::start(command, address)
    }

    /// An HAProxy of one thread in front of a live.
    pub(crate) fn haproxy(dir: &Path, live: SocketAddr) -> anyhow::Result<Self> {
        let address = free_address()?;
        let text = format!(
            "global\n nbthread 1\ndefaults\n mode http\n option forwardfor\n http-reuse always\n timeout client 60s\n \
             timeout server 60s\n timeout connect 2s\nfrontend users\n bind {address}\n \
             http-request set-header X-Forwarded-Proto http\n default_backend live\nbackend live\n server live {live}\n"
        );
        let mut command = pinned(PROXY_CORE, Path::new("haproxy"));
        command.arg("-db").arg("-f").arg(written(dir, "haproxy.cfg", &text)?);
        Self::start(command, address)
    }

    /// An Envoy of one worker in front of a live, with its mirror policy for so many in a hundred requests.
    pub(crate) fn envoy(
        dir: &Path,
        binary: &Path,
        name: &str,
        (live, shadow, share): (SocketAddr, SocketAddr, u32),
        is_http2: bool,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let options = if is_http2 { "http2_protocol_options: {}" } else { "http_protocol_options: {}" };
        let cluster = |name: &str, to: SocketAddr| {
            format!(
                "  - name: {name}\n    type: STATIC\n    typed_extension_protocol_options:\n      \
                 envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
                 \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
                 explicit_http_config: {{ {options} }}\n    load_assignment: {{ cluster_name: {name}, endpoints: \
                 [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}] }}\n",
                to.ip(),
                to.port()
            )
        };
        let copies = if share == 0 {
            String::new()
        } else {
            format!(
                ", request_mirror_policies: [{{ cluster: shadow, runtime_fraction: {{ default_value: {{ numerator: {share} }} }} }}]"
            )
        };
        let text = format!(
            "static_resources:\n  listeners:\n  - address: {{ socket_address: {{ address: {}, port_value: {} }} }}\n    \
             filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        \
             typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
             stat_prefix: users\n          use_remote_address: true\n          http_filters:\n          - name: envoy.filters.http.router\n            \
             typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}\n          \
             route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, \
             route: {{ cluster: live{copies} }} }}] }}] }}\n  clusters:\n{}{}",
            address.ip(),
            address.port(),
            cluster("live", live),
            cluster("shadow", shadow)
        );
        let file = written(dir, &format!("{}.yaml", name.replace(' ', "-")), &text)?;
        let mut command = pinned(PROXY_CORE, binary);
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c"]).arg(file);
        Self::start(command, address)
    }

    /// The mirror alone, of one worker, with a shadow that gets so many in a hundred requests.
    pub(crate) fn mirror(
        dir: &Path,
        binary: &Path,
        name: &str,
        (live, shadow, share): (SocketAddr, Option<SocketAddr>, u32),
        extra: &str,
    ) -> anyhow::Result<Self> {
        let shadow = shadow.map(|shadow| format!("http://{shadow}"));
        Self::mirror_to(dir, binary, name, (live, shadow.as_deref(), share), extra)
    }

    /// The same, with the whole address of its shadow.
    pub(crate) fn mirror_to(
        dir: &Path,
        binary: &Path,
        name: &str,
        (live, shadow, share): (SocketAddr, Option<&str>, u32),
        extra: &str,
    ) -> anyhow::Result<Self> {
        let (address, name) = (free_address()?, name.replace([' ', '%'], ""));
        let shadow = shadow.map(|shadow| format!(", shadow: {shadow:?}")).unwrap_or_default();
        let text = format!(
            "listen: {address}\nlives: [{{ url: \"http://{live}\"{shadow} }}]\nrate: {share}%\nworkers: 1\nreport: 1s\n\
             mirror: {{ budget: {{ copiesPerSecond: 1000000, sizePerSecond: 1Gi }}, \
             shadowTimeout: 1s, {extra} }}\n"
        );
        let file = written(dir, &format!("{name}.yaml"), &text)?;
        let report = dir.join(format!("{name}.jsonl"));
        let mut command = pinned(PROXY_CORE, binary);
        command.arg("mirror").arg(file).args(["-o", "json"]).env("FORESHADOW_LOG", "error");
        command.stdout(std::fs::File::create(&report)?);
        let mut server = Self::start(command, address)?;
        server.report = Some(report);
        Ok(server)
    }

    /// A mirror that captures so many in a hundred connections with a live, on that one's processor.
    pub(crate) fn capture(
        dir: &Path,
        binary: &Path,
        (live, shadow): (SocketAddr, SocketAddr),
        rate: &str,
    ) -> anyhow::Result<Self> {
        let metrics = free_address()?;
        let text = format!(
            "source: capture\ncapture: {{ interface: lo }}\nlives: [{{ url: \"http://{live}\", shadow: \"http://{shadow}\" }}]\n\
             rate: {rate}%\nmetrics: {metrics}\nmirror: {{ budget: {{ copiesPerSecond: 1000000, sizePerSecond: 1Gi }}, \
             shadowTimeout: 1s }}\n"
        );
        let file = written(dir, "capture.yaml", &text)?;
        let mut command = pinned(PROXY_CORE, binary);
        command.arg("mirror").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        Self::start(command, metrics)
    }

    fn start(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("failed to start {command:?}"))?;
        let mut server = Self { child, address, report: None };
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

    /// The most that it held in memory so far.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn memory_mib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib >> 10)
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

/// A file of the measurement.
fn written(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let file = dir.join(name);
    std::fs::write(&file, text).with_context(|| format!("failed to write `{}`", file.display()))?;
    Ok(file)
}

fn answer() -> String {
    format!("default_type text/plain; return 200 \"{}\";", "x".repeat(ANSWER_BYTES))
}

/// Writes a certificate for TLS in front of everything.
pub(crate) fn certificate(dir: &Path) -> anyhow::Result<()> {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    openssl.args(["-keyout", "key.pem", "-out", "cert.pem", "-days", "30", "-subj", "/CN=localhost"]);
    let output = openssl.output().context("failed to run openssl")?;
    ensure!(output.status.success(), "no certificate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Envoy, where the machine has it.
pub(crate) fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("FORESHADOW_ENVOY").map(PathBuf::from);
    named.filter(|path| path.is_file()).or_else(|| is_there("envoy").then(|| PathBuf::from("envoy")))
}

/// Whether a program is on the path.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The binary as it is shipped, built now.
pub(crate) fn built(root: &Path) -> anyhow::Result<PathBuf> {
    let status = Command::new("cargo")
        .args(["build", "--profile", "dist", "--package", "foreshadow-cli", "--bin", "foreshadow"])
        .current_dir(root)
        .status()
        .context("failed to run cargo")?;
    ensure!(status.success(), "the binary that is shipped does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("dist/foreshadow"))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?)
}
