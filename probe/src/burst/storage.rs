//! Reads and writes past the page cache, in a file on the volume that is asked about.
//!
//! *Why past the cache*: what goes through it differs by 38 % between identical machines. *What it cannot see*: a rate
//! cap of a provider hides the disk until it is passed.
#![expect(unsafe_code, reason = "io_uring takes pointers to buffers")]

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use foreshadow_model::BurstKind;
use io_uring::{IoUring, opcode, squeue, types};

use super::operations::Log;
use super::{Length, Work};
use crate::clock::monotonic;
use crate::scratch::{BLOCK, Block, Scratch};

/// Operations under way at the same time.
const DEPTH: u32 = 32;

/// Operations of a burst; how many complete at a time is the device's choice, so steps do not count them.
const DEEP_BURST: u64 = 128;

/// What one operation moves, as io_uring counts it.
const BLOCK_BYTES: u32 = 4096;

/// Blocks of one sequential read: 256 KiB.
const RUN: usize = 64;

/// Numbers that look random: xorshift by Marsaglia (2003), period 2^64 − 1. The same in every run, for live and shadow.
struct Places {
    state: u64,
    blocks: u64,
}

impl Places {
    const fn new(blocks: u64) -> Self {
        Self { state: 0x9E37_79B9_7F4A_7C15, blocks }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % self.blocks * BLOCK as u64
    }
}

/// One operation at a time.
pub(super) struct Single {
    kind: BurstKind,
    scratch: Scratch,
    places: Places,
    sequential: u64,
    buffer: Vec<Block>,
}

impl Single {
    pub(super) fn new(kind: BurstKind, scratch: Scratch) -> Self {
        let places = Places::new(scratch.blocks());
        let blocks = if kind == BurstKind::StorageSequential { RUN } else { 1 };
        Self { kind, scratch, places, sequential: 0, buffer: Block::noise(blocks) }
    }
}

impl Work for Single {
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let place = self.places.next();
        let file = self.scratch.file();
        let block = Block::bytes(&mut self.buffer);
        let before = monotonic();
        let (done, work) = match self.kind {
            BurstKind::StorageWrite => (file.write_all_at(block, place), 1.0),
            BurstKind::StorageSync => (file.write_all_at(block, place).and_then(|()| file.sync_data()), 1.0),
            BurstKind::StorageSequential => {
                let from = self.sequential;
                let runs = (self.scratch.blocks() / RUN as u64).max(1);
                self.sequential = (from + 1) % runs;
                (file.read_exact_at(block, from * block.len() as u64), block.len() as f64)
            }
            _ => (file.read_exact_at(block, place), 1.0),
        };
        done.map_err(|error| failed(self.kind, &error))?;
        log.since(before, 1);
        Ok(work)
    }
}

fn failed(kind: BurstKind, error: &std::io::Error) -> String {
    let what = if kind == BurstKind::StorageRead { "read" } else { "use" };
    format!("cannot {what} the file: {error}")
}

/// [`DEPTH`] operations at a time. A new one is submitted for every one that completes: one submission for a whole batch
/// reads a fifth less.
pub(super) struct Deep {
    kind: BurstKind,
    scratch: Scratch,
    places: Places,
    ring: IoUring,
    buffer: Vec<Block>,
    begun: Vec<Duration>,
    free: VecDeque<u32>,
    /// Operations the kernel has, whose buffers must stay.
    under_way: u32,
    /// Operations that were begun, of this many in all.
    submitted: u64,
    total: u64,
}

impl Deep {
    pub(super) fn new(kind: BurstKind, scratch: Scratch, length: Length) -> Result<Self, String> {
        let ring = IoUring::new(DEPTH).map_err(|error| format!("io_uring cannot be had here: {error}"))?;
        Ok(Self {
            kind,
            places: Places::new(scratch.blocks()),
            scratch,
            ring,
            buffer: Block::noise(DEPTH as usize),
            begun: vec![Duration::ZERO; DEPTH as usize],
            free: (0..DEPTH).collect(),
            under_way: 0,
            submitted: 0,
            total: if length == Length::Burst { DEEP_BURST } else { u64::MAX },
        })
    }

    /// An operation at the next place with the buffer of this slot.
    fn entry(&mut self, slot: u32) -> squeue::Entry {
        let (file, place) = (types::Fd(self.scratch.file().as_raw_fd()), self.places.next());
        let block = self.buffer[slot as usize].0.as_mut_ptr();
        let entry = if self.kind == BurstKind::StorageWrites {
            opcode::Write::new(file, block, BLOCK_BYTES).offset(place).build()
        } else {
            opcode::Read::new(file, block, BLOCK_BYTES).offset(place).build()
        };
        entry.user_data(u64::from(slot))
    }

    /// Every operation is submitted by itself: the device can begin with it while the next is made ready.
    fn submit(&mut self) -> Result<(), String> {
        while self.submitted < self.total
            && let Some(slot) = self.free.pop_front()
        {
            let entry = self.entry(slot);
            self.begun[slot as usize] = monotonic();
            // SAFETY: the buffer of a slot is not touched while the kernel has it, and is freed only after all operations
            // have come back (`finish`, `drop`); the file lives as long.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            pushed.map_err(|_full| "the queue is full".to_owned())?;
            self.under_way += 1;
            self.submitted += 1;
            self.ring.submit().map_err(|error| failed(self.kind, &error))?;
        }
        Ok(())
    }

    /// Waits for one completion and takes it, and no other: its place is to be filled before the next is looked at.
    fn reap(&mut self, log: &mut Log) -> Result<u32, String> {
        self.ring.submit_and_wait(1).or_else(|error| {
            if error.kind() == std::io::ErrorKind::Interrupted {
                Ok(0)
            } else {
                Err(failed(self.kind, &error))
            }
        })?;
        let mut problem = None;
        let mut done = 0;
        if let Some(completion) = self.ring.completion().next() {
            let slot = u32::try_from(completion.user_data()).unwrap_or(0) % DEPTH;
            log.since(self.begun[slot as usize], 1);
            self.free.push_back(slot);
            self.under_way -= 1;
            done += 1;
            if completion.result() < 0 {
                problem = Some(std::io::Error::from_raw_os_error(-completion.result()));
            } else if usize::try_from(completion.result()) != Ok(BLOCK) {
                problem = Some(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        problem.map_or(Ok(done), |error| Err(failed(self.kind, &error)))
    }
}

impl Work for Deep {
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        self.submit()?;
        if self.under_way == 0 { Ok(0.0) } else { self.reap(log).map(f64::from) }
    }

    fn is_done(&self) -> bool {
        self.submitted == self.total && self.under_way == 0
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        let mut rest = Log::default();
        while 0 < self.under_way {
            let before = self.under_way;
            if self.reap(&mut rest).is_err() && self.under_way == before {
                // The ring is of no use any more, and the kernel may still write: better a leak than that.
                std::mem::forget(std::mem::take(&mut self.buffer));
                return;
            }
        }
    }
}
