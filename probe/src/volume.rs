//! The files that the storage tests of instances use, each on the volume of its instance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use foreshadow_model::{Bytes, InstanceId};

use crate::clock::monotonic;
use crate::pair::Target;
use crate::scratch::Scratch;

/// After this a file that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Where an instance's storage tests write, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// As the instance sees it; `None` is the working directory of its first process.
    pub directory: Option<PathBuf>,
    /// The size of the file.
    pub size: Bytes,
    /// Where it is made instead if it cannot be made there, as the controller sees it: a shadow's own volumes may be
    /// read-only, or memory.
    pub fallback: Option<PathBuf>,
}

/// The files of all instances.
#[derive(Debug)]
pub(crate) struct Files(Mutex<BTreeMap<InstanceId, Kept>>);

impl Files {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Another handle on the file of an instance. `Err` is why there is none, or none yet. Never waits.
    pub(crate) fn of(&self, target: &Target, volume: &Volume) -> Result<Scratch, String> {
        let Some(pid) = target.pid else { return Err("no process of the instance is known".to_owned()) };
        let now = monotonic();
        let mut files = self.kept();
        let is_good = |kept: &&mut Kept| {
            let is_fresh = !kept.file.failed() || now < kept.since.saturating_add(AGAIN);
            kept.pid == pid && kept.volume == *volume && is_fresh
        };
        if let Some(kept) = files.get_mut(&target.instance).filter(is_good) {
            return kept.file.look();
        }
        let file = Making::begin(pid, volume.clone());
        let mut kept = Kept { pid, volume: volume.clone(), file, since: now };
        let file = kept.file.look();
        files.insert(target.instance.clone(), kept);
        file
    }

    /// Gives back those of instances that are no more.
    pub(crate) fn keep_only(&self, instances: &[InstanceId]) {
        self.kept().retain(|instance, _| instances.contains(instance));
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept for one instance.
#[derive(Debug)]
pub(crate) struct Kept {
    pid: u32,
    volume: Volume,
    file: Making,
    since: Duration,
}

/// The file of the storage tests. A thread of its own makes it: a volume that does not answer holds up nobody else.
#[derive(Debug)]
enum Making {
    UnderWay(mpsc::Receiver<Result<Scratch, String>>),
    Done(Result<Scratch, String>),
}

impl Making {
    fn begin(pid: u32, volume: Volume) -> Self {
        let (told, made) = mpsc::sync_channel(1);
        let begun = thread::Builder::new().name("scratch".into()).spawn(move || {
            // Nobody may want it any more.
            told.send(make_file(pid, &volume)).unwrap_or_default();
        });
        match begun {
            Ok(_) => Self::UnderWay(made),
            Err(error) => Self::Done(Err(format!("no thread can be started: {error}"))),
        }
    }

    fn look(&mut self) -> Result<Scratch, String> {
        if let Self::UnderWay(made) = self {
            match made.try_recv() {
                Ok(file) => *self = Self::Done(file),
                Err(mpsc::TryRecvError::Empty) => return Err("its file is being made".to_owned()),
                Err(mpsc::TryRecvError::Disconnected) => {
                    *self = Self::Done(Err("its file could not be made".to_owned()));
                }
            }
        }
        match self {
            Self::Done(file) => file.as_ref().map_err(Clone::clone)?.share(),
            Self::UnderWay(_) => Err("its file is being made".to_owned()),
        }
    }

    const fn failed(&self) -> bool {
        matches!(self, Self::Done(Err(_)))
    }
}

fn make_file(pid: u32, volume: &Volume) -> Result<Scratch, String> {
    let directory = match &volume.directory {
        Some(directory) => directory.clone(),
        None => std::fs::read_link(format!("/proc/{pid}/cwd"))
            .map_err(|error| format!("the working directory of process {pid} is unknown: {error}"))?,
    };
    let own = Scratch::create_as_seen_by(pid, &directory, volume.size);
    own.or_else(|error| {
        let why = foreshadow_model::with_causes(&error);
        let elsewhere = volume.fallback.as_ref().map(|fallback| Scratch::create(fallback, volume.size));
        elsewhere.and_then(Result::ok).ok_or(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Target {
        let pid = Some(std::process::id());
        Target { instance: InstanceId::live(1), cgroup: None, pid, netns: None }
    }

    fn volume(directory: &str) -> Volume {
        Volume { directory: Some(directory.into()), size: Bytes::mebi(1), fallback: None }
    }

    /// The file, once it is made.
    fn made(files: &Files, volume: &Volume) -> Result<Scratch, String> {
        for _ in 0..1000 {
            match files.of(&own(), volume) {
                Err(reason) if reason.contains("being made") => thread::sleep(Duration::from_millis(10)),
                other => return other,
            }
        }
        panic!("a file of a MiB is made within ten seconds")
    }

    #[test]
    fn a_file_is_made_once_for_an_instance_and_given_back_with_it() {
        let (files, volume) = (Files::new(), volume(env!("CARGO_MANIFEST_DIR")));
        let Ok(first) = made(&files, &volume) else {
            eprintln!("skipped: needs a file system that can be read past the page cache");
            return;
        };
        let inode = |file: &Scratch| rustix::fs::fstat(file).unwrap().st_ino;
        assert_eq!(inode(&first), inode(&made(&files, &volume).unwrap()));
        files.keep_only(&[]);
        assert!(files.kept().is_empty());
    }

    #[test]
    fn a_volume_that_cannot_be_used_gives_way_to_the_fallback() {
        let nowhere = volume("/proc");
        assert!(made(&Files::new(), &nowhere).unwrap_err().contains("/proc"));
        let fallback = Some(env!("CARGO_MANIFEST_DIR").into());
        if let Err(why) = made(&Files::new(), &Volume { fallback, ..nowhere }) {
            assert!(why.contains("/proc"), "the first reason is told: {why}");
        }
    }

    #[test]
    fn without_a_process_there_is_no_volume() {
        let nobody = Target { pid: None, ..own() };
        assert!(Files::new().of(&nobody, &volume("/")).unwrap_err().contains("no process"));
    }
}
