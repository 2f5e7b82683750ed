//! What the kernel counts of the whole node: read once, for all instances on it.

use std::path::{Path, PathBuf};

use super::file::Reader;
use super::parse;

/// What only grows while a node is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounters {
    pub(super) cpu_pressure_us: Option<u64>,
    pub(super) memory_pressure_us: Option<u64>,
    pub(super) io_pressure_us: Option<u64>,
    pub(super) steal_us: Option<u64>,
}

/// Reads them.
#[derive(Debug)]
pub struct NodeReader {
    proc_root: PathBuf,
    reader: Reader,
}

impl Default for NodeReader {
    fn default() -> Self {
        Self::of(Path::new("/proc"))
    }
}

impl NodeReader {
    pub(super) fn of(proc_root: &Path) -> Self {
        Self { proc_root: proc_root.to_owned(), reader: Reader::default() }
    }

    /// The counters now; what cannot be read is `None`.
    pub fn read(&mut self) -> NodeCounters {
        let mut pressure = |of: &str| {
            let path = self.proc_root.join("pressure").join(of);
            parse::pressure_total(self.reader.read(&path)?, b"some ")
        };
        let (cpu_pressure_us, memory_pressure_us, io_pressure_us) =
            (pressure("cpu"), pressure("memory"), pressure("io"));
        let steal_us = self.reader.read(&self.proc_root.join("stat")).and_then(parse::steal_us);
        NodeCounters { cpu_pressure_us, memory_pressure_us, io_pressure_us, steal_us }
    }
}
