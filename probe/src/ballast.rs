//! Memory that a shadow holds so that it is as large, and as busy, as that of its live.
//!
//! *Why*: a shadow answers a sample of the traffic, so its heap stays small, its caches are warm, and it is faster than live
//! can be. *How*: a process in the shadow's cgroup maps what is missing, fills it with noise and changes as many pages a
//! second as live does. *Given back at once* when memory is short there: its pressure, or less room than a sixteenth of the
//! limit. The kernel takes this process before any other. It ends with the pipe it is told through, so nothing is left
//! when the controller is killed.

use std::fs;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_model::{Bytes, CgroupPaths};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::attached::Attached;
use crate::cgroup::{limit, memory_room, version_of};
use crate::clock::timespec;
use crate::helper::settle;
use crate::pair::HelperCommand;
use crate::signals::parse;

/// From one look at the pressure to the next, and from one step to the next.
const STEP: Duration = Duration::from_millis(100);

/// Mapped in one step: filling it takes some milliseconds.
const GROW_MAX: usize = 8 << 20;

/// Percent of the time in which tasks of the shadow wait for memory from which all is given back.
const PRESSURE_MAX: f64 = 1.0;

/// Part of the limit, or of the node, that must stay free.
const ROOM_PART: u64 = 16;

/// Without a limit, what the node must have left.
const NODE_ROOM_MIN: Bytes = Bytes::mebi(512);

const PAGE: usize = 4096;

/// What a ballast holds, as a line of JSON on its standard input; the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Load {
    /// So much.
    pub bytes: Bytes,
    /// Of it, so much is changed a second.
    pub changed_bytes_per_second: f64,
}

/// The ballast of one shadow, seen by the controller. It ends when this is dropped.
#[derive(Debug)]
pub struct Ballast(Attached);

/// How a ballast came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BallastEnd {
    /// It gave all back, because memory was short.
    Short,
    /// Its shadow ended, or somebody killed it.
    Other,
}

/// What the process of a ballast ends with when memory was short: refused by a guard.
const SHORT: i32 = 12;

impl Ballast {
    /// Starts one in this cgroup; `command` is how this program becomes a ballast.
    ///
    /// # Errors
    /// Those of starting a process.
    pub fn start(command: &HelperCommand, cgroup: &CgroupPaths) -> io::Result<Self> {
        Ok(Self(Attached::start(command, serde_json::to_string(cgroup)?)?))
    }

    /// Tells it what to hold from now on.
    ///
    /// # Errors
    /// `BrokenPipe` if it has ended: it gave all back because memory was short, or the kernel took it.
    pub fn hold(&mut self, load: Load) -> io::Result<()> {
        serde_json::to_writer(&mut self.0.orders, &load)?;
        self.0.orders.write_all(b"\n")
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// How it ended; `None` while it holds what it was told to.
    pub fn ended(&mut self) -> Option<BallastEnd> {
        let status = self.0.ended()?;
        Some(if status.code() == Some(SHORT) { BallastEnd::Short } else { BallastEnd::Other })
    }
}

/// Becomes a ballast: `cgroup` is the last argument as JSON, what to hold comes line by line on standard input. Returns what
/// the process is to end with: 0 when that ends, 12 when memory is short.
///
/// # Errors
/// If the argument is no cgroup, or the cgroup cannot be joined.
pub fn ballast_main(cgroup: &str) -> io::Result<i32> {
    let cgroup: CgroupPaths = serde_json::from_str(cgroup)?;
    settle(Some(&cgroup), None).map_err(io::Error::other)?;
    let mut held = Held::default();
    let mut orders = io::BufReader::new(io::stdin());
    loop {
        if is_short(&cgroup) {
            return Ok(SHORT);
        }
        let more = held.step();
        // What is to be mapped does not wait for an order.
        let wait = if more { Duration::from_millis(10) } else { STEP };
        let stdin = io::stdin();
        let mut pipe = [PollFd::new(&stdin, PollFlags::IN)];
        let ready = poll(&mut pipe, Some(&timespec(wait))).unwrap_or(0);
        if 0 < ready || !orders.buffer().is_empty() {
            let mut line = String::new();
            if orders.read_line(&mut line)? == 0 {
                return Ok(0);
            }
            held.load = serde_json::from_str(&line)?;
        }
    }
}

/// What is held.
#[derive(Debug, Default)]
struct Held {
    load: Load,
    pieces: Vec<Vec<u8>>,
    /// The page that is changed next: its piece, and which of it.
    next: (usize, usize),
    /// Pages that are due: what is less than one is not lost.
    owed: f64,
    noise: u64,
}

impl Held {
    /// Grows or shrinks by a step and changes what is due of it. Returns whether there is more to map.
    fn step(&mut self) -> bool {
        let target = usize::try_from(self.load.bytes.get()).unwrap_or(usize::MAX) / PAGE * PAGE;
        let held: usize = self.pieces.iter().map(Vec::len).sum();
        if target < held {
            // The last piece goes as a whole; what was too much comes back in the next step.
            self.pieces.pop();
        } else if held < target {
            let length = (target - held).min(GROW_MAX);
            let piece = self.filled(length);
            self.pieces.push(piece);
        }
        self.change();
        held != target
    }

    fn filled(&mut self, length: usize) -> Vec<u8> {
        let mut piece = vec![0; length];
        for word in piece.chunks_exact_mut(8) {
            self.noise =
                self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&self.noise.to_le_bytes());
        }
        piece
    }

    fn change(&mut self) {
        let pages: usize = self.pieces.iter().map(|piece| piece.len() / PAGE).sum();
        if pages == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "pages of one process")]
        let most = pages as f64;
        self.owed += self.load.changed_bytes_per_second.max(0.0) * STEP.as_secs_f64() / 4096.0;
        self.owed = self.owed.min(most);
        while 1.0 <= self.owed {
            let (piece, page) = self.next;
            match self.pieces.get_mut(piece) {
                Some(piece) if page < piece.len() / PAGE => {
                    piece[page * PAGE] = piece[page * PAGE].wrapping_add(1);
                    self.next.1 += 1;
                    self.owed -= 1.0;
                }
                Some(_) => self.next = (piece + 1, 0),
                None => self.next = (0, 0),
            }
        }
    }
}

/// Whether the shadow, or its node, has too little memory left for this.
fn is_short(cgroup: &CgroupPaths) -> bool {
    let pressure = cgroup
        .unified
        .as_ref()
        .and_then(|unified| parse::pressure_avg10(&fs::read(unified.join("memory.pressure")).ok()?));
    let node: Option<u64> = fs::read("/proc/meminfo").ok().and_then(|text| parse::keyed(&text, b"MemTotal:"));
    let limit = memory_limit(cgroup).or(node.map(|kibi| Bytes::new(kibi.saturating_mul(1024))));
    let least = limit.map_or(NODE_ROOM_MIN, |limit| Bytes::new(limit.get() / ROOM_PART));
    // What the page cache holds there is given back by the kernel before anything else.
    let cached = cgroup.memory.as_ref().map_or(0, |directory| {
        let text = fs::read(directory.join("memory.stat")).unwrap_or_default();
        let of = |keys: [&[u8]; 2]| keys.into_iter().find_map(|key| parse::keyed(&text, key)).unwrap_or(0);
        of([b"total_inactive_file", b"inactive_file"])
            .saturating_add(of([b"total_active_file", b"active_file"]))
    });
    let room = memory_room(Some(cgroup)).map(|room| Bytes::new(room.get().saturating_add(cached)));
    pressure.is_some_and(|percent| PRESSURE_MAX <= percent) || room.is_some_and(|room| room < least)
}

fn memory_limit(cgroup: &CgroupPaths) -> Option<Bytes> {
    let directory: &PathBuf = cgroup.memory.as_ref()?;
    let (_, limit_file) = version_of(directory)?.memory_files();
    let text = fs::read(directory.join(limit_file)).ok()?;
    limit(parse::number(&text)?).map(Bytes::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_shrinks_to_what_is_asked_and_changes_as_much_as_is_due() {
        let load = Load { bytes: Bytes::mebi(20), changed_bytes_per_second: 40_960.0 };
        let mut held = Held { load, ..Held::default() };
        while held.step() {}
        assert_eq!(held.pieces.iter().map(Vec::len).sum::<usize>(), 20 << 20);
        (held.next, held.owed) = ((0, 0), 0.0);
        for _ in 0..10 {
            held.step();
        }
        assert_eq!(held.next, (0, 10), "ten pages in a second");
        held.next = (1, 2048);
        held.step();
        assert_eq!(held.next, (2, 1), "and on to the next piece");
        held.load.bytes = Bytes::mebi(3);
        while held.step() {}
        assert_eq!(held.pieces.iter().map(Vec::len).sum::<usize>(), 3 << 20);
    }

    #[test]
    fn nothing_held_changes_nothing() {
        let load = Load { changed_bytes_per_second: 1e9, ..Load::default() };
        let mut held = Held { load, ..Held::default() };
        assert!(!held.step());
    }
}
