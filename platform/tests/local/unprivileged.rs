//! Without root it still runs and says what it cannot do.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use foreshadow_model::{Inventory, Readiness, Resources, Template};

use crate::world::{HELPER, is_alive, python, unique};

/// A service that needs nothing.
fn simple(python: &str, storage: Option<PathBuf>) -> Template {
    let code = "import http.server, os; http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), \
                http.server.SimpleHTTPRequestHandler).serve_forever()";
    Template {
        command: [python, "-c", code].map(String::from).to_vec(),
        workdir: PathBuf::from("/"),
        env: [].into(),
        shadow_env: [].into(),
        ready: Readiness::Tcp,
        ready_timeout: Duration::from_secs(20),
        resources: Resources::default(),
        storage: storage.into_iter().collect(),
        egress_allow: Vec::new(),
    }
}

/// What a controller that is nobody says of itself and what it runs; with its processes looked at while they ran.
fn as_nobody(storage: bool) -> Option<(Inventory, Vec<String>, Vec<String>)> {
    let Some(python) = python().filter(|_| nix::unistd::geteuid().is_root()) else {
        eprintln!("SKIPPED: needs root and python3");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let helper = folder.path().join("helper");
    fs::copy(HELPER, &helper).unwrap();
    let data = folder.path().join("data");
    fs::write(&data, "live's own").unwrap();
    let template = folder.path().join("template.json");
    let wanted = simple(&python, storage.then_some(data));
    fs::write(&template, serde_json::to_vec(&wanted).unwrap()).unwrap();
    let mut child = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
        .arg(helper)
        .args(["control", &unique()])
        .arg(folder.path().join("state"))
        .arg(template)
        .arg("1")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    let inventory: Inventory = serde_json::from_value(said["inventory"].clone()).unwrap();
    let list = |name: &str| serde_json::from_value::<Vec<String>>(said[name].clone()).unwrap();
    assert!(is_alive(inventory.pairs[0].live.pids[0]));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "it shuts down in order");
    assert!(!is_alive(inventory.pairs[0].live.pids[0]));
    Some((inventory, list("unenforced"), list("told")))
}

#[test]
fn without_root_a_pair_runs_and_every_lack_has_its_remedy() {
    let Some((inventory, unenforced, _)) = as_nobody(false) else { return };
    let pair = &inventory.pairs[0];
    let shadow = pair.shadow.as_ref().unwrap();
    assert!(pair.live.is_ready() && shadow.is_ready());
    assert!(shadow.netns.is_none() && shadow.cgroup.is_none());
    for (what, remedy) in [("cgroups:", "Delegate=yes"), ("namespaces:", "CAP_SYS_ADMIN")] {
        assert!(
            unenforced.iter().any(|lack| lack.starts_with(what) && lack.contains(remedy)),
            "{unenforced:?}"
        );
    }
}

#[test]
fn without_root_declared_storage_means_no_shadow_and_says_why() {
    let Some((inventory, _, told)) = as_nobody(true) else { return };
    assert!(inventory.pairs[0].live.is_ready());
    assert!(inventory.pairs[0].shadow.is_none());
    assert!(told.iter().any(|change| change.contains("run as root, or declare no storage")), "{told:?}");
}
