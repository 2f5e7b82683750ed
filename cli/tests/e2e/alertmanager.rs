//! A real Alertmanager beside the controller.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::controller::{is_listening, wait_until};
use crate::http::{Connection, Request};

pub(crate) const PROGRAM: &str = "prometheus-alertmanager";

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);

/// It tells nobody further. Ended when dropped.
pub(crate) struct Alertmanager {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, "route: { receiver: none }\nreceivers: [{ name: none }]\n").unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(PROGRAM)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alertmanager = Self { address, child, _folder: folder };
        wait_until("Alertmanager", START_LIMIT, || is_listening(address));
        alertmanager
    }

    /// The part of a configuration that names it as the receiver.
    pub(crate) fn section(&self) -> String {
        format!("alerts: {{ alertmanager: \"http://{}\", repeat: 10s }}\n", self.address)
    }

    /// Waits until this alarm fires, or no longer does.
    pub(crate) fn wait_for(&self, key: &str, is_firing: bool, limit: Duration) {
        let what = if is_firing { format!("{key} firing") } else { format!("{key} resolved") };
        wait_until(&what, limit, || self.is_firing(key) == is_firing);
    }

    fn is_firing(&self, key: &str) -> bool {
        let request = Request::get("/api/v2/alerts?active=true");
        let response = Connection::new(self.address).ask(&request).unwrap();
        let alerts: Vec<Value> = serde_json::from_slice(&response.body).unwrap();
        alerts.iter().any(|alert| alert["labels"]["key"] == key)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
