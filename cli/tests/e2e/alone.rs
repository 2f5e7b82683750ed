//! `foreshadow mirror`, which stands alone: against real services and real clients.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::controller::{foreshadow, is_listening, needs, program, turn, wait_until};
use crate::http::{Connection, Request};
use crate::services::run_python;

/// How long something may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with its handle.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An address that nobody has at this moment.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A mirror that stands alone, in a folder of its own.
pub(crate) struct Alone {
    pub(crate) folder: TempDir,
    pub(crate) listen: SocketAddr,
    process: Process,
}

impl Alone {
    /// Starts it on `lives`, as they stand in the file, with these lines besides.
    pub(crate) fn start(lives: &str, more: &str) -> Self {
        let (folder, listen) = (tempfile::tempdir().unwrap(), free_address());
        let text = format!("listen: {listen}\nlives: {lives}\nreport: 1s\nworkers: 1\n{more}");
        std::fs::write(folder.path().join("mirror.yaml"), text).unwrap();
        let process = Process(Self::run(folder.path(), &[]));
        let alone = Self { folder, listen, process };
        alone.wait_served();
        alone
    }

    fn run(folder: &Path, words: &[&str]) -> Child {
        let report = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("report.jsonl"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
        foreshadow()
            .args(["mirror", "mirror.yaml", "-o", "json"])
            .args(words)
            .current_dir(folder)
            .stdout(report.unwrap())
            .stderr(log.unwrap())
            .spawn()
            .unwrap()
    }

    fn wait_served(&self) {
        let began = std::time::Instant::now();
        while !self.log().contains("Mirror serves") {
            assert!(began.elapsed() < PATIENCE, "it does not serve: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Another one takes its place; returns when that serves and this one has ended.
    fn replace(&mut self) {
        let served = self.log().matches("Mirror serves").count();
        let mut before =
            std::mem::replace(&mut self.process, Process(Self::run(self.folder.path(), &["--replace"])));
        wait_until("the next one serves", PATIENCE, || served < self.log().matches("Mirror serves").count());
        let began = std::time::Instant::now();
        while before.0.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// What it has reported so far; a line that is half written is left out.
    pub(crate) fn sums(&self) -> Sums {
        let text = std::fs::read_to_string(self.folder.path().join("report.jsonl")).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        Sums(whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Ends it in good order; the sum over everything it reported of what stands at a place of a live.
    pub(crate) fn end(mut self) -> Sums {
        self.signal("-TERM");
        let status = self.process.0.wait().unwrap();
        assert!(status.success(), "{}", self.log());
        self.sums()
    }
}

/// Everything that a mirror reported.
pub(crate) struct Sums(Vec<Value>);

impl Sums {
    /// The sum of what stands at a place of the first live.
    pub(crate) fn of(&self, place: &str) -> u64 {
        let lives = self.0.iter().map(|line| &line["summary"]["upstreams"][0]);
        lives.filter_map(|live| live.pointer(place)?.as_u64()).sum()
    }

    /// Two answers to one request, however far they agree.
    pub(crate) fn paired(&self) -> u64 {
        let names = ["same", "diverging", "liveErrorOnly", "shadowErrorOnly"];
        names.iter().map(|name| self.of(&format!("/agreement/{name}"))).sum()
    }

    /// Copies that came to nothing, whatever the reason.
    pub(crate) fn dropped(&self) -> u64 {
        let drops = self.0.iter().filter_map(|line| line["summary"]["upstreams"][0]["drops"].as_object());
        drops.flat_map(|drops| drops.values().filter_map(Value::as_u64)).sum()
    }
}

/// A live or a shadow, troubled or not, and where it listens.
pub(crate) fn instance(trouble: &str) -> (Process, SocketAddr) {
    let mut child = foreshadow().args(["lab", "shadow", trouble]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (Process(child), line.trim().parse().unwrap())
}

/// Asks all the time until told to stop; counts what failed, and what was answered.
struct Asking {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Asking {
    fn start(to: SocketAddr) -> Self {
        let (stop, failed, answered) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..4)
            .map(|_| {
                let (stop, failed, answered) = (stop.clone(), failed.clone(), answered.clone());
                std::thread::spawn(move || {
                    let mut connection = Connection::new(to);
                    while !stop.load(Ordering::Relaxed) {
                        match connection.ask(&Request::get("/")) {
                            Ok(response) if response.status == 200 => {
                                answered.fetch_add(1, Ordering::Relaxed)
                            }
                            _ => failed.fetch_add(1, Ordering::Relaxed),
                        };
                        // Half of the requests come over a new connection.
                        if answered.load(Ordering::Relaxed) % 2 == 0 {
                            connection = Connection::new(to);
                        }
                    }
                })
            })
            .collect();
        Self { stop, failed, answered, threads }
    }

    fn end(self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

#[test]
fn a_mirror_is_replaced_by_the_next_one_and_no_request_fails() {
    let _turn = turn();
    let (_live, live_at) = instance("none");
    let (_shadow, shadow_at) = instance("none");
    let mut alone =
        Alone::start(&format!("[{{ url: http://{live_at}, shadow: http://{shadow_at}, rate: 50% }}]"), "");
    let asking = Asking::start(alone.listen);
    for _ in 0..5 {
        alone.replace();
    }
    let (answered, failed) = asking.end();
    assert_eq!(failed, 0, "of {answered}: {}", alone.log());
    assert!(100 < answered, "{answered}");
    let sums = alone.end();
    // Those that left the last ones behind said so in the same file.
    assert_eq!(sums.of("/liveSide/requests"), answered as u64);
    assert!(0 < sums.of("/agreement/same"));
}

#[test]
fn a_file_that_changed_is_read_at_sighup_and_one_that_is_wrong_changes_nothing() {
    let _turn = turn();
    let (live, live_at) = instance("none");
    let (_other, other_at) = instance("none");
    let alone = Alone::start(&format!("[{{ url: http://{live_at} }}]"), "");
    let file = alone.folder.path().join("mirror.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("report: 1s", "report: 1")).unwrap();
    alone.signal("-HUP");
    wait_until("a complaint", PATIENCE, || alone.log().contains("the one before stays"));
    assert!(alone.log().contains("expected a duration"), "{}", alone.log());
    std::fs::write(&file, text.replace(&live_at.to_string(), &other_at.to_string())).unwrap();
    alone.signal("-HUP");
    wait_until("the new file", PATIENCE, || alone.log().contains("Configuration read again"));
    drop(live);
    // The threads that serve users take the new file over a moment later.
    wait_until("the other live", PATIENCE, || {
        Connection::new(alone.listen).ask(&Request::get("/")).is_ok_and(|response| response.status == 200)
    });
    alone.end();
}

#[test]
fn a_shadow_gets_more_than_its_live_while_its_copies_are_multiplied() {
    let _turn = turn();
    let (_live, live_at) = instance("none");
    let (_shadow, shadow_at) = instance("none");
    let alone =
        Alone::start(&format!("[{{ url: http://{live_at}, shadow: http://{shadow_at}, rate: 100% }}]"), "");
    let asking = Asking::start(alone.listen);
    let amplify = |words: &[&str]| {
        foreshadow().arg("amplify").args(words).current_dir(alone.folder.path()).output().unwrap()
    };
    let output = amplify(&["--factor", "5x", "--for", "3s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for words in [&["--factor", "1x"][..], &["--factor", "5"], &["--factor", "5x", "--for", "2h"]] {
        assert_eq!(amplify(words).status.code(), Some(2), "{words:?}");
    }
    let (answered, failed) = asking.end();
    assert_eq!(failed, 0, "of {answered}");
    let sums = alone.end();
    assert!(0 < sums.of("/drops/amplified"), "pairs are void meanwhile");
    assert!(sums.of("/sampled") < sums.of("/shadowSide/requests") + sums.dropped(), "repeats are measured");
}

#[test]
fn what_cannot_be_is_refused_at_the_start_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = taken.local_addr().unwrap();
    for (text, expected) in [
        ("lives: []".to_owned(), "expected a live, got none"),
        ("lives: [{ url: http://nowhere.invalid:80 }]".to_owned(), "failed to find `nowhere.invalid:80`"),
        (format!("listen: {taken_at}\nlives: [{{ url: http://127.0.0.1:1 }}]"), "names who has the port"),
        (
            "listen: 127.0.0.1:0\nlives: [{ url: http://127.0.0.1:1 }]\nmirror: { front: { tls: { certificate: no.pem, key: no.key } } }".to_owned(),
            "no.pem",
        ),
    ] {
        std::fs::write(folder.path().join("mirror.yaml"), text).unwrap();
        let output = foreshadow().arg("mirror").current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

/// Runs a Python program that asks the mirror; says what it printed, or why it cannot be run here.
fn asked_by_python(modules: &str, code: &str) -> Option<String> {
    let Some(python) = crate::services::python() else {
        assert!(std::env::var_os("CI").is_none(), "CI must have python with {modules}");
        eprintln!("SKIPPED: needs python with {modules} (FORESHADOW_GUNICORN names gunicorn in a venv)");
        return None;
    };
    let has = Command::new(python).args(["-c", &format!("import {modules}")]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must have {modules}");
        eprintln!("SKIPPED: needs {modules} of PyPI");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    Some(run_python(folder.path(), &["-c", code], &[]))
}

#[test]
fn real_grpc_goes_through_in_every_kind_of_call() {
    let _turn = turn();
    let live_at = free_address();
    let alone = Alone::start(&format!("[{{ url: http://{live_at} }}]"), "");
    let code = GRPC.replace("LIVE", &live_at.to_string()).replace("MIRROR", &alone.listen.to_string());
    let Some(said) = asked_by_python("grpc", &code) else { return };
    assert_eq!(
        said.trim(),
        "unary server client bidi NOT_FOUND DEADLINE_EXCEEDED CANCELLED metadata",
        "{}",
        alone.log()
    );
    // Not found is the caller's fault, and to change one's mind after half a second is nobody's. A deadline is live's.
    assert_eq!(alone.end().of("/liveSide/errors"), 1);
}

/// A server of gRPC, and a client that calls it through the mirror in every way there is.
const GRPC: &str = r#"
import grpc, time, threading
from concurrent import futures
same = lambda b: b
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        def unary(request, context):
            if request == b'lost': context.abort(grpc.StatusCode.NOT_FOUND, 'lost')
            if request == b'slow': time.sleep(5)
            context.set_trailing_metadata((('seen', dict(context.invocation_metadata()).get('x-word', '')),))
            return request
        def server(request, context):
            for i in range(3): yield request + bytes(str(i), 'ascii')
        def client(requests, context): return b''.join(requests)
        def bidi(requests, context):
            for request in requests: yield request.upper()
        kind = details.method.rsplit('/', 1)[1]
        return {'Unary': grpc.unary_unary_rpc_method_handler(unary, same, same),
                'Server': grpc.unary_stream_rpc_method_handler(server, same, same),
                'Client': grpc.stream_unary_rpc_method_handler(client, same, same),
                'Bidi': grpc.stream_stream_rpc_method_handler(bidi, same, same)}[kind]
serving = grpc.server(futures.ThreadPoolExecutor(8)); serving.add_generic_rpc_handlers((Echo(),))
serving.add_insecure_port('LIVE'); serving.start()
channel = grpc.insecure_channel('MIRROR')
said = []
unary = channel.unary_unary('/t.Echo/Unary', same, same)
if unary(b'one', timeout=20) == b'one': said.append('unary')
if list(channel.unary_stream('/t.Echo/Server', same, same)(b'a', timeout=20)) == [b'a0', b'a1', b'a2']: said.append('server')
if channel.stream_unary('/t.Echo/Client', same, same)(iter([b'a', b'b']), timeout=20) == b'ab': said.append('client')
if list(channel.stream_stream('/t.Echo/Bidi', same, same)(iter([b'a', b'b']), timeout=20)) == [b'A', b'B']: said.append('bidi')
for word, timeout in ((b'lost', 20), (b'slow', 2)):
    try: unary(word, timeout=timeout)
    except grpc.RpcError as error: said.append(error.code().name)
calling = unary.future(b'slow'); threading.Timer(0.5, calling.cancel).start()
try: calling.result()
except grpc.FutureCancelledError: said.append('CANCELLED')
_, call = unary.with_call(b'x', timeout=20, metadata=(('x-word', 'hello'),))
if dict(call.trailing_metadata()).get('seen') == 'hello': said.append('metadata')
print(' '.join(said))
"#;

#[test]
fn a_real_web_socket_goes_through() {
    let _turn = turn();
    let live_at = free_address();
    let alone = Alone::start(&format!("[{{ url: http://{live_at} }}]"), "");
    let code =
        WEB_SOCKET.replace("PORT", &live_at.port().to_string()).replace("MIRROR", &alone.listen.to_string());
    let Some(said) = asked_by_python("websockets", &code) else { return };
    assert_eq!(said.trim(), "HELLO 1000000", "{}", alone.log());
    let sums = alone.end();
    assert_eq!((sums.of("/upgraded"), sums.of("/liveSide/errors")), (1, 0));
}

const WEB_SOCKET: &str = r"
import asyncio, websockets
async def shout(socket):
    async for message in socket: await socket.send(message.upper())
async def main():
    async with websockets.serve(shout, '127.0.0.1', PORT, max_size=None):
        async with websockets.connect('ws://MIRROR/chat', max_size=None) as socket:
            await socket.send('hello'); first = await asyncio.wait_for(socket.recv(), 30)
            await socket.send('x' * 1000000); print(first, len(await asyncio.wait_for(socket.recv(), 30)))
asyncio.run(main())
";

#[test]
fn tls_and_the_proxy_protocol_of_others_are_spoken() {
    let _turn = turn();
    if !needs(&["nginx", "haproxy", "openssl", "curl"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    signed(folder.path());
    let (nginx_at, haproxy_at) = (free_address(), free_address());
    let _nginx = nginx(folder.path(), nginx_at);
    let front = "mirror: { front: { proxyProtocol: true, tls: { certificate: CERT, key: KEY } } }\n";
    let path = |name: &str| folder.path().join(name).display().to_string();
    let front = front.replace("CERT", &path("localhost.pem")).replace("KEY", &path("localhost.key"));
    let live = format!(
        "[{{ url: \"https://localhost:{}\", http2: true, authorities: {:?} }}]",
        nginx_at.port(),
        path("ca.pem")
    );
    let alone = Alone::start(&live, &front);
    let _haproxy = haproxy(folder.path(), haproxy_at, alone.listen);
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = Command::new("curl");
        curl.args(["-s", option, "--cacert", &path("ca.pem"), "--retry", "5", "--retry-connrefused"]);
        curl.args(["-w", " %{http_version}", &format!("https://localhost:{}/", haproxy_at.port())]);
        let said = String::from_utf8(curl.output().unwrap().stdout).unwrap();
        assert_eq!(said, format!("HTTP/2.0 127.0.0.1 https {version}"), "{}", alone.log());
    }
    assert_eq!(alone.end().of("/liveSide/errors"), 0);
}

/// An authority and a certificate for `localhost`.
fn signed(folder: &Path) {
    let openssl = |words: &str| {
        let status =
            Command::new("openssl").args(words.split(' ')).current_dir(folder).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{words}");
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=test",
    );
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout localhost.key -out localhost.csr -subj /CN=localhost",
    );
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(
        "x509 -req -in localhost.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out localhost.pem -days 30 -extfile names",
    );
}

/// An nginx that speaks HTTP/2 by TLS and says how it was asked, for whom, and how those came.
fn nginx(folder: &Path, listen: SocketAddr) -> Process {
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr error; events {{}}\n\
         http {{ access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; \
         scgi_temp_path e; ssl_certificate localhost.pem; ssl_certificate_key localhost.key;\n\
         server {{ listen {listen} ssl http2; location / {{ default_type text/plain; \
         return 200 \"$server_protocol $http_x_forwarded_for $http_x_forwarded_proto\"; }} }} }}"
    );
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
    let process =
        Command::new(program("nginx").unwrap()).arg("-p").arg(folder).args(["-c", "nginx.conf"]).spawn();
    let process = Process(process.unwrap());
    wait_until("nginx", PATIENCE, || is_listening(listen));
    process
}

/// An HAProxy that balances TCP and says who the client is.
fn haproxy(folder: &Path, listen: SocketAddr, to: SocketAddr) -> Process {
    let text = format!(
        "defaults\n mode tcp\n timeout client 30s\n timeout server 30s\n timeout connect 5s\nlisten all\n bind {listen}\n server mirror {to} send-proxy-v2\n"
    );
    let file: PathBuf = folder.join("haproxy.cfg");
    std::fs::File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
    let process = Command::new(program("haproxy").unwrap()).arg("-db").arg("-f").arg(file).spawn().unwrap();
    let process = Process(process);
    wait_until("haproxy", PATIENCE, || is_listening(listen));
    process
}
