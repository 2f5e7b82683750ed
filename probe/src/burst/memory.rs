//! Bandwidth and latency of memory, over one piece of it that is larger than the caches.
#![expect(
    unsafe_code,
    reason = "pages mapped and touched in one call: a fault for each costs three times as much"
)]

use std::cell::RefCell;
use std::hint::black_box;
use std::ptr::NonNull;
use std::rc::Rc;

use foreshadow_model::Bytes;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::Work;
use super::operations::Log;

/// The pages all memory tests use, everywhere.
pub const PAGE_MODE: &str = "4 KiB pages";

/// Below this they would fit into the caches of many machines and measure those.
const ARRAYS_MIN: Bytes = Bytes::mebi(16);

/// They may take this part of the room that is left.
const ROOM_DIVISOR: u64 = 10;

/// Elements of one array that are worked on between two looks at the clock.
const SLICE: usize = 32_768;

/// Elements between two arrays, so that they do not start at the same offset within a page: loads and stores whose
/// addresses agree in the lowest 12 bits hold each other up.
const GAP: usize = 136;

const ELEMENT_BYTES: u64 = 8;

/// Elements of a cache line.
const LINE: usize = 8;

/// Loads of the chase in one step.
const LOADS: u32 = 1000;

/// The size of the memory for a given room: `most` or a half, a quarter, ... of it, the largest that is at most a tenth of
/// `room`. In steps, so that a room that changes a little does not change the test.
///
/// # Errors
/// In words, if that is below 16 MiB.
pub fn array_bytes(room: Option<Bytes>, most: Bytes) -> Result<Bytes, String> {
    let allowed = room.map_or(u64::MAX, |room| room.get() / ROOM_DIVISOR);
    let mut size = most.get();
    while allowed < size {
        size /= 2;
    }
    if ARRAYS_MIN.get() <= size {
        return Ok(Bytes::new(size));
    }
    let room = room.unwrap_or(Bytes::new(0));
    Err(format!("{room} of memory are free, the test wants a tenth of it to be at least {ARRAYS_MIN}"))
}

/// Memory, mapped and touched. All zero at first.
#[derive(Debug)]
pub(super) struct Arena {
    start: NonNull<f64>,
    elements: usize,
    /// Whether huge pages were off before.
    huge_pages_were_off: bool,
}

impl Arena {
    /// `Err` is the reason why not.
    pub(super) fn new(bytes: Bytes) -> Result<Self, String> {
        let huge_pages_were_off = rustix::thread::transparent_huge_pages_are_disabled()
            .map_err(|error| format!("the mode of huge pages is unknown: {error}"))?;
        rustix::thread::disable_transparent_huge_pages(true)
            .map_err(|error| format!("huge pages cannot be switched off: {error}"))?;
        let bytes = usize::try_from(bytes.get()).map_err(|error| error.to_string())?;
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; it overlaps with nothing that exists.
        let mapped =
            unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let start = mapped.map(|start| NonNull::new(start.cast::<f64>()));
        let (Ok(Some(start)), elements) = (start, bytes / size_of::<f64>()) else {
            restore_huge_pages(huge_pages_were_off);
            return Err("the memory cannot be mapped".to_owned());
        };
        Ok(Self { start, elements, huge_pages_were_off })
    }

    fn numbers(&mut self) -> &mut [f64] {
        // SAFETY: the mapping holds `elements` doubles, is aligned to a page, readable, writable and all zero at first
        // (a valid double), and nobody else has a reference to it while `self` is borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.elements) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and no reference into it is left.
        unsafe { munmap(self.start.as_ptr().cast(), self.elements * size_of::<f64>()) }.unwrap_or_default();
        restore_huge_pages(self.huge_pages_were_off);
    }
}

/// Setting back what was read a moment ago; if it fails, huge pages stay off, which harms nobody.
fn restore_huge_pages(were_off: bool) {
    rustix::thread::disable_transparent_huge_pages(were_off).unwrap_or_default();
}

/// A triad, `a[i] = b[i] + s·c[i]`, as STREAM does it.
pub(super) struct Triad {
    arena: Rc<RefCell<Arena>>,
    /// Elements of one array, a multiple of [`SLICE`].
    length: usize,
    at: usize,
}

impl Triad {
    pub(super) fn new(arena: Rc<RefCell<Arena>>) -> Self {
        let length = (arena.borrow().elements / 3 - GAP) / SLICE * SLICE;
        Self { arena, length, at: 0 }
    }
}

impl Work for Triad {
    /// The score counts bytes: two loads and one store of eight bytes per element, as STREAM counts.
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let mut arena = self.arena.borrow_mut();
        let (a, rest) = arena.numbers().split_at_mut(self.length + GAP);
        let (b, c) = rest.split_at(self.length + GAP);
        let range = self.at..self.at + SLICE;
        log.time(1, || {
            triad(&mut a[range.clone()], &b[range.clone()], &c[range.clone()], black_box(3.0));
        });
        black_box(&a[range.start]);
        self.at = range.end % self.length;
        Ok(SLICE as f64 * 3.0 * ELEMENT_BYTES as f64)
    }
}

#[inline(never)]
fn triad(a: &mut [f64], b: &[f64], c: &[f64], scale: f64) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        *a = b + scale * c;
    }
}

/// Loads one after another, each from a line that is only known when the one before has come. Which line follows is
/// calculated and not read, so that nothing has to be laid out first: a linear congruential sequence that visits every
/// line once before it repeats, mixed so that no prefetcher finds a pattern.
pub(super) struct Chase {
    arena: Rc<RefCell<Arena>>,
    /// Lines less one; lines are a power of two.
    mask: usize,
    state: usize,
}

impl Chase {
    pub(super) fn new(arena: Rc<RefCell<Arena>>) -> Self {
        let lines = arena.borrow().elements / LINE;
        Self { arena, mask: (1 << lines.ilog2()) - 1, state: 0 }
    }
}

impl Work for Chase {
    /// The score counts loads, and so does the operation.
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let mut arena = self.arena.borrow_mut();
        let numbers = arena.numbers();
        self.state = log.time(LOADS, || chase(numbers, self.mask, self.state));
        Ok(f64::from(LOADS))
    }
}

#[inline(never)]
fn chase(numbers: &[f64], mask: usize, from: usize) -> usize {
    let mut state = from;
    for _ in 0..LOADS {
        let line = line_of(state, mask);
        // What is read becomes part of where is read next. It is always zero, which the compiler cannot know: the triad
        // never makes a negative number of zeros.
        let sign = usize::from(numbers[line * LINE].is_sign_negative());
        state = next(state.wrapping_add(sign), mask);
    }
    black_box(state)
}

/// Full period modulo a power of two: the factor is 1 modulo 4, the addend odd.
fn next(state: usize, mask: usize) -> usize {
    state.wrapping_mul(0x0019_660D).wrapping_add(0x3C6E_F35F) & mask
}

/// A one-to-one mixing of the lower bits of a congruential sequence, which are regular, with the upper ones.
fn line_of(state: usize, mask: usize) -> usize {
    let half = (mask.count_ones() / 2).max(1);
    let mixed = (state ^ (state >> half)).wrapping_mul(0x9E37_79B1) & mask;
    mixed ^ (mixed >> half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_a_tenth_of_the_room_in_steps() {
        let mebi = |room| array_bytes(Some(Bytes::mebi(room)), Bytes::mebi(64)).ok();
        assert_eq!(array_bytes(None, Bytes::mebi(64)), Ok(Bytes::mebi(64)));
        assert_eq!(array_bytes(None, Bytes::mebi(256)), Ok(Bytes::mebi(256)));
        assert_eq!(mebi(10_000), Some(Bytes::mebi(64)));
        assert_eq!(mebi(639), Some(Bytes::mebi(32)));
        assert_eq!(mebi(160), Some(Bytes::mebi(16)));
        assert_eq!(mebi(159), None);
        assert_eq!(mebi(0), None);
    }

    #[test]
    fn the_triad_adds_up() {
        let mut a = [0.0; 2];
        triad(&mut a, &[1.0, 2.0], &[10.0, 20.0], 3.0);
        assert_eq!(a, [31.0, 62.0]);
    }

    #[test]
    fn the_arrays_stay_within_their_memory() {
        for bytes in [64, 32, 16].map(Bytes::mebi) {
            let arena = Rc::new(RefCell::new(Arena::new(bytes).unwrap()));
            let triad = Triad::new(arena.clone());
            assert!(2 * (triad.length + GAP) + triad.length <= arena.borrow().elements);
            let chase = Chase::new(arena.clone());
            assert!((chase.mask + 1) * LINE <= arena.borrow().elements);
        }
    }

    #[test]
    fn the_chase_visits_every_line_before_it_repeats() {
        for bits in [4, 11, 16] {
            let mask = (1_usize << bits) - 1;
            let (mut seen, mut state) = (vec![false; mask + 1], 0);
            for _ in 0..=mask {
                let line = line_of(state, mask);
                assert!(!std::mem::replace(&mut seen[line], true), "{line} twice of {bits} bits");
                state = next(state, mask);
            }
            assert_eq!(state, 0, "and then begins again");
        }
    }
}
