//! Control groups, version 1 and 2, behind one set of verbs.
//!
//! The two differ in where a controller lives and in the names of files; what is written is decided in pure functions
//! and tested on file trees, since no machine has both.

mod memory;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use foreshadow_model::{Bytes, CgroupPaths, MilliCpu, Resources};

/// The directory all of foreshadow's cgroups are under.
const ROOT: &str = "foreshadow";

/// Length of an enforcement period of the cpu quota, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The least quota the kernel takes, in microseconds.
const QUOTA_MIN_US: u64 = 1_000;

/// How often a parent may be taken away while a directory is made under it, before that is an error.
const RACES_MAX: u32 = 1000;

/// What the kernel says of a file whose cgroup was just removed.
const ENODEV: i32 = 19;

/// Why a cgroup could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of it could not be written.
    #[error("failed to write `{value}` to `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// The memory limit is below what is in use and cannot be given back.
    #[error("{limit} of memory are too few: {held} bytes are in use and cannot be given back")]
    TooSmall {
        /// The limit that was asked for.
        limit: Bytes,
        /// What is in use, in bytes.
        held: u64,
    },
    /// A directory of it could not be made.
    #[error("failed to make the cgroup `{}`", path.display())]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CgroupError {
    /// Whether what was to be made or written vanished under our hands.
    fn is_gone(&self) -> bool {
        match self {
            Self::Create { source, .. } | Self::Write { source, .. } => {
                matches!(source.kind(), io::ErrorKind::NotFound) || source.raw_os_error() == Some(ENODEV)
            }
            Self::TooSmall { .. } => false,
        }
    }
}

/// The cgroup trees of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    version: Version,
    /// Parent directories per controller, as mounted.
    mounts: CgroupPaths,
}

/// Which interface files a controller has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One tree per controller.
    V1,
    /// One tree for all.
    V2,
}

impl Hierarchy {
    /// Finds the trees in the text of `/proc/self/mountinfo`; `None` where there is none with a cpu controller.
    #[must_use]
    pub fn detect(mountinfo: &str) -> Option<Self> {
        let mut mounts = CgroupPaths::default();
        let mut unified = None;
        for line in mountinfo.lines() {
            let (left, right) = line.split_once(" - ")?;
            let point = PathBuf::from(left.split(' ').nth(4)?);
            let mut right = right.split(' ');
            match right.next()? {
                "cgroup2" => unified = Some(point),
                "cgroup" => {
                    for option in right.nth(1).unwrap_or_default().split(',') {
                        match option {
                            "cpu" => mounts.cpu = Some(point.clone()),
                            "cpuacct" => mounts.cpuacct = Some(point.clone()),
                            "memory" => mounts.memory = Some(point.clone()),
                            "blkio" => mounts.io = Some(point.clone()),
                            "cpuset" => mounts.cpuset = Some(point.clone()),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if mounts.cpu.is_some() {
            return Some(Self { version: Version::V1, mounts: CgroupPaths { unified, ..mounts } });
        }
        unified.map(|root| Self::version_two(&root))
    }

    /// The version 2 tree mounted at `root`.
    #[must_use]
    pub fn version_two(root: &Path) -> Self {
        let root = Some(root.to_path_buf());
        let mounts = CgroupPaths {
            cpu: root.clone(),
            cpuacct: root.clone(),
            memory: root.clone(),
            io: root.clone(),
            cpuset: root.clone(),
            unified: root,
        };
        Self { version: Version::V2, mounts }
    }

    /// Which version it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where the cgroup of an instance is, whether it exists or not.
    #[must_use]
    pub fn paths(&self, service: &str, instance: &str) -> CgroupPaths {
        let under = |mount: &Option<PathBuf>| {
            mount.as_ref().map(|mount| mount.join(ROOT).join(service).join(instance))
        };
        CgroupPaths {
            cpu: under(&self.mounts.cpu),
            cpuacct: under(&self.mounts.cpuacct),
            memory: under(&self.mounts.memory),
            io: under(&self.mounts.io),
            cpuset: under(&self.mounts.cpuset),
            unified: under(&self.mounts.unified),
        }
    }

    /// Makes the cgroup of an instance with these limits on these processors; one that is there is changed.
    ///
    /// # Errors
    /// [`CgroupError`] naming the file, most often for want of privileges.
    pub fn create(
        &self,
        service: &str,
        instance: &str,
        limits: Resources,
        cpus: &str,
    ) -> Result<CgroupPaths, CgroupError> {
        let paths = self.paths(service, instance);
        for directory in paths.directories() {
            self.make(directory)?;
        }
        if let Some(cpuset) = &paths.cpuset {
            write(&cpuset.join("cpuset.cpus"), cpus)?;
        }
        self.set_cpu(&paths, limits.cpu)?;
        self.set_memory(&paths, limits.memory)?;
        Ok(paths)
    }

    /// Makes a directory and its parents. Another controller may take an empty parent away meanwhile: once more then.
    fn make(&self, directory: &Path) -> Result<(), CgroupError> {
        for _ in 1..RACES_MAX {
            match self.make_down(directory) {
                Err(error) if error.is_gone() => {}
                made => return made,
            }
        }
        self.make_down(directory)
    }

    /// Makes a directory and its parents down from the mount. Version 2 hands controllers down level by level;
    /// version 1's cpuset refuses tasks until it has memory nodes.
    fn make_down(&self, directory: &Path) -> Result<(), CgroupError> {
        let levels: Vec<&Path> = directory.ancestors().take(3).collect();
        for level in levels.into_iter().rev() {
            match fs::create_dir(level) {
                Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(CgroupError::Create { path: level.to_path_buf(), source });
                }
                _ => {}
            }
            let Some(parent) = level.parent() else { continue };
            match self.version {
                Version::V2 => {
                    for controller in ["+cpu", "+cpuset", "+memory", "+io"] {
                        write(&parent.join("cgroup.subtree_control"), controller)?;
                    }
                }
                Version::V1 => {
                    for file in ["cpuset.mems", "cpuset.cpus"] {
                        if let Ok(inherited) = fs::read_to_string(parent.join(file)) {
                            write(&level.join(file), inherited.trim())?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets the cpu limit; `None` is no limit.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn set_cpu(&self, paths: &CgroupPaths, cpu: Option<MilliCpu>) -> Result<(), CgroupError> {
        let Some(directory) = &paths.cpu else { return Ok(()) };
        let quota = cpu.map(|cpu| (u64::from(cpu.get()) * PERIOD_US / 1000).max(QUOTA_MIN_US));
        match (self.version, quota) {
            (Version::V1, None) => write(&directory.join("cpu.cfs_quota_us"), "-1"),
            (Version::V1, Some(quota)) => {
                write(&directory.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                write(&directory.join("cpu.cfs_quota_us"), &quota.to_string())
            }
            (Version::V2, None) => write(&directory.join("cpu.max"), &format!("max {PERIOD_US}")),
            (Version::V2, Some(quota)) => write(&directory.join("cpu.max"), &format!("{quota} {PERIOD_US}")),
        }
    }

    /// Lets an instance have the processor only when others leave it, or as anybody.
    ///
    /// # Errors
    /// [`CgroupError`] naming the file.
    pub fn set_idle(&self, paths: &CgroupPaths, idle: bool) -> Result<(), CgroupError> {
        let Some(directory) = &paths.cpu else { return Ok(()) };
        match self.version {
            Version::V1 => write(&directory.join("cpu.shares"), if idle { "2" } else { "1024" }),
            Version::V2 => write(&directory.join("cpu.weight"), if idle { "1" } else { "100" }),
        }
    }

    /// The cpu limit in force; `None` is no limit, or not readable.
    #[must_use]
    pub fn cpu(&self, paths: &CgroupPaths) -> Option<MilliCpu> {
        let directory = paths.cpu.as_ref()?;
        let read = |file| fs::read_to_string(directory.join(file)).ok();
        let (quota, period) = match self.version {
            Version::V1 => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
            Version::V2 => {
                let text = read("cpu.max")?;
                let (quota, period) = text.trim().split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        let (quota, period): (u64, u64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
        u32::try_from(quota.checked_mul(1000)?.checked_div(period)?).ok().map(MilliCpu::new)
    }
}

/// Every process of the cgroup.
#[must_use]
pub fn pids(paths: &CgroupPaths) -> Vec<u32> {
    let mut all: Vec<u32> = paths
        .directories()
        .iter()
        .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
        .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>())
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Removes an empty cgroup. What is still in use stays and is told.
///
/// # Errors
/// The error of the first directory that could not be removed; the others are tried all the same.
pub fn remove(paths: &CgroupPaths) -> io::Result<()> {
    let mut first = Ok(());
    for directory in paths.directories() {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => first = first.and(Err(error)),
            _ => {}
        }
        // The service's own directory goes with its last instance; it is in use until then.
        if let Some(service) = directory.parent() {
            drop(fs::remove_dir(service));
        }
    }
    first
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Write {
        path: path.to_path_buf(),
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";
    const LIMITS: Resources = Resources { cpu: Some(MilliCpu::new(250)), memory: Some(Bytes::mebi(64)) };

    #[test]
    fn both_versions_are_found() {
        let v1 = Hierarchy::detect(V1).unwrap();
        assert_eq!(v1.version(), Version::V1);
        assert_eq!(v1.mounts.cpu, v1.mounts.cpuacct);
        assert_eq!(v1.mounts.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(v1.mounts.cpuset, None);
        let v2 = Hierarchy::detect("30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n").unwrap();
        assert_eq!(v2, Hierarchy::version_two(Path::new("/sys/fs/cgroup")));
        assert_eq!(Hierarchy::detect("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), None);
        assert_eq!(Hierarchy::detect("garbage"), None);
    }

    #[test]
    fn limits_are_written_the_way_version_two_wants_them() {
        let root = tempfile::tempdir().unwrap();
        let tree = Hierarchy::version_two(root.path());
        let paths = tree.create("shop", "live-1", LIMITS, "0-1").unwrap();
        let read = |file: &str| fs::read_to_string(paths.cpu.as_ref().unwrap().join(file)).unwrap();
        assert_eq!(read("cpu.max"), "25000 100000");
        assert_eq!(read("memory.max"), (64 << 20).to_string());
        assert_eq!(read("cpuset.cpus"), "0-1");
        assert_eq!((tree.cpu(&paths), tree.memory(&paths)), (LIMITS.cpu, LIMITS.memory));
        assert!(root.path().join("foreshadow/shop/cgroup.subtree_control").exists());
        tree.set_cpu(&paths, None).unwrap();
        assert_eq!(read("cpu.max"), "max 100000");
        assert_eq!(tree.cpu(&paths), None);
        tree.set_idle(&paths, true).unwrap();
        assert_eq!(read("cpu.weight"), "1");
        tree.set_idle(&paths, false).unwrap();
        assert_eq!(read("cpu.weight"), "100");
    }

    #[test]
    fn limits_are_written_the_way_version_one_wants_them() {
        let root = tempfile::tempdir().unwrap();
        for tree in ["cpu", "memory", "cpuset"] {
            fs::create_dir(root.path().join(tree)).unwrap();
        }
        fs::write(root.path().join("cpuset/cpuset.mems"), "0\n").unwrap();
        let at = |tree: &str| Some(root.path().join(tree));
        let mounts = CgroupPaths {
            cpu: at("cpu"),
            memory: at("memory"),
            cpuset: at("cpuset"),
            ..CgroupPaths::default()
        };
        let tree = Hierarchy { version: Version::V1, mounts };
        let paths = tree.create("shop", "live-1", LIMITS, "1").unwrap();
        let read =
            |dir: &Option<PathBuf>, file: &str| fs::read_to_string(dir.as_ref().unwrap().join(file)).unwrap();
        assert_eq!(read(&paths.cpu, "cpu.cfs_quota_us"), "25000");
        assert_eq!(read(&paths.memory, "memory.limit_in_bytes"), (64 << 20).to_string());
        assert_eq!(read(&paths.cpuset, "cpuset.mems"), "0", "without memory nodes no task may enter");
        assert_eq!((tree.cpu(&paths), tree.memory(&paths)), (LIMITS.cpu, LIMITS.memory));
    }

    #[test]
    fn controllers_that_come_and_go_at_once_take_nobody_the_ground_away() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Hierarchy {
            version: Version::V1,
            mounts: CgroupPaths { cpu: Some(directory.path().to_path_buf()), ..CgroupPaths::default() },
        };
        std::thread::scope(|scope| {
            for name in ["one", "two"] {
                let tree = &tree;
                scope.spawn(move || {
                    for _ in 0..500 {
                        let paths = tree.paths("check", name);
                        tree.make(paths.cpu.as_ref().unwrap()).unwrap();
                        remove(&paths).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_cgroup_that_may_not_be_made_names_its_path() {
        let tree = Hierarchy::version_two(Path::new("/proc/no-such-cgroup-root"));
        let error = tree.create("shop", "live-1", LIMITS, "0").unwrap_err();
        assert!(error.to_string().contains("/proc/no-such-cgroup-root"), "{error}");
    }
}
