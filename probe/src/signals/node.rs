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
    /// Of the network namespace that this process is in.
    pub(super) network: NetworkCounters,
}

/// What only grows while a network namespace exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NetworkCounters {
    pub(super) segments_out: Option<u64>,
    pub(super) retransmits: Option<u64>,
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: Option<u64>,
    pub(super) lost: Option<u64>,
}

impl NetworkCounters {
    /// Of the namespace that `/proc/PID/net` shows.
    pub(super) fn read(directory: &Path, reader: &mut Reader) -> Self {
        let (segments_out, retransmits) =
            reader.read_once(&directory.join("snmp")).and_then(parse::tcp_segments).unzip();
        let interfaces = reader.read_once(&directory.join("dev")).and_then(parse::interfaces);
        Self {
            segments_out,
            retransmits,
            bytes_in: interfaces.map(|(bytes, ..)| bytes),
            bytes_out: interfaces.map(|(_, bytes, _)| bytes),
            lost: interfaces.map(|(.., packets)| packets),
        }
    }
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
        let network = NetworkCounters::read(&self.proc_root.join("self").join("net"), &mut self.reader);
        self.reader.end();
        NodeCounters { cpu_pressure_us, memory_pressure_us, io_pressure_us, steal_us, network }
    }
}
