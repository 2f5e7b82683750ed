//! The disk of the state folder is full: nothing is done that could not be written down, and everything else goes on.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::controller::{Controller, foreshadow, has_cgroups, pair, turn, verdict};
use crate::crowd::failures;
use crate::killed::{config, kill_9};
use crate::walk::LIMIT;
use crate::walk_acts::{SIZE, acting, calm, crowd, kinds, row};

/// A small disk of its own: a file system in memory.
struct Disk(TempDir);

impl Disk {
    /// `None`, loudly, where nobody may mount.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(folder.path());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a small file system");
        eprintln!("SKIPPED: needs root to mount a small file system");
        None
    }

    /// Fills what is left but for these bytes.
    fn fill_but(&self, bytes: u64) {
        let path = self.0.path().join("ballast");
        let mut ballast = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length - bytes).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
    }
}

fn troubles(status: &Value) -> String {
    status["troubles"].to_string()
}

fn shadow_pid(status: &Value) -> Option<u64> {
    pair(status, "live-2")["shadow"]["pids"][0].as_u64()
}

/// The process of that shadow as the record of instances has it: another one would be an orphan after a crash.
fn recorded(folder: &Path) -> Option<u64> {
    let record = fs::read_to_string(folder.join("state/instances.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    record["instances"]["shadow-2"]["process"]["pid"].as_u64()
}

#[test]
fn on_a_full_disk_nothing_is_done_and_all_else_goes_on_until_there_is_room() {
    let _turn = turn();
    let Some(disk) = has_cgroups().then(Disk::new).flatten() else { return };
    let controller = Controller::start_prepared(&acting("e2e-full", "act"), |folder| {
        symlink(disk.0.path(), folder.join("state")).unwrap();
    });
    let crowd = crowd(&controller.wait_ready());
    let quota = calm(&controller);
    disk.fill_but(0);
    quota.starve();
    let full = controller.wait("trouble", LIMIT, |status| {
        disk.fill_but(0);
        troubles(status).contains("journal:") && verdict(status, "live-1") == "\"degraded\""
    });
    let killed = shadow_pid(&full).unwrap();
    let record = recorded(&controller.folder);
    kill_9(killed);
    let on = controller.wait("ten more ticks", LIMIT, |status| {
        disk.fill_but(0);
        full["tick"].as_u64().unwrap() + 10 < status["tick"].as_u64().unwrap()
    });
    assert_eq!(quota.get(), quota.too_little, "nothing is done");
    assert_eq!(on["actions"], Value::Array(Vec::new()));
    assert!(full["mirrored"].as_u64() < on["mirrored"].as_u64(), "mirroring goes on");
    assert!(controller.log().contains("key=\"unwritten/journal\" severity=critical is_over=false"));
    disk.free();
    let healed = controller.wait("an outcome", LIMIT, |status| !row(status, 1)["effect"].is_null());
    assert!(!row(&healed, 1)["effect"]["helped"].is_null(), "{}", row(&healed, 1));
    let whole: Vec<String> = ["intent", "applied", "outcome"].map(str::to_owned).into();
    assert_eq!((quota.get(), kinds(&controller, "a1")), (SIZE, whole));
    controller.wait("the end of it", LIMIT, |status| {
        let written = recorded(&controller.folder);
        troubles(status) == "[]" && written.is_some() && written != record
    });
    assert!(controller.log().contains("key=\"unwritten/journal\" severity=critical is_over=true"));
    let answers = crowd.end();
    println!("full disk: {} requests, {} failed", answers.len(), failures(&answers));
    assert_eq!(failures(&answers), 0);
}

#[test]
fn a_start_on_a_full_disk_fails_and_says_what_to_do() {
    let _turn = turn();
    let Some(disk) = Disk::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    symlink(disk.0.path(), folder.path().join("state")).unwrap();
    let file = folder.path().join("foreshadow.yaml");
    fs::write(&file, config("e2e-no-room", "")).unwrap();
    // Not even a lock; then a lock, and no history.
    for room in [0, 16 << 10] {
        disk.fill_but(room);
        let mut run = assert_cmd::Command::from_std(foreshadow());
        let output = run.arg("run").arg(&file).timeout(Duration::from_secs(60)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("= help: make room on the disk of the state folder"), "{said}");
    }
}
