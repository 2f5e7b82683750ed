//! A triad, `a[i] = b[i] + s·c[i]`, over arrays larger than the caches, as STREAM does it.

use std::hint::black_box;
use std::time::Duration;

use foreshadow_model::Bytes;

use super::Done;
use crate::clock::monotonic;

/// All three arrays together are never larger than this.
const ARRAYS_MAX: Bytes = Bytes::mebi(64);

/// Below this they would fit into the caches of many machines and measure those.
const ARRAYS_MIN: Bytes = Bytes::mebi(16);

/// They may take this part of the room that is left.
const ROOM_DIVISOR: u64 = 10;

/// Elements of one array that are worked on between two looks at the clock.
const SLICE: usize = 32_768;

/// Slices in a burst, whatever the size of the arrays: 201 MB moved, about 10 ms at 20 GB/s. A constant for ever.
const SLICES: usize = 256;

/// Elements between two arrays, so that they do not start at the same offset within a page: loads and stores whose
/// addresses agree in the lowest 12 bits hold each other up.
const GAP: usize = 136;

const ELEMENT_BYTES: u64 = 8;

/// The size of the arrays for a given room: 64, 32 or 16 MiB, the largest that is at most a tenth of `memory_room`;
/// `None` if even the smallest is more. In steps, so that a room that changes a little does not change the test.
#[must_use]
pub fn array_bytes(memory_room: Option<Bytes>) -> Option<Bytes> {
    let allowed = memory_room.map_or(u64::MAX, |room| room.get() / ROOM_DIVISOR);
    let mut size = ARRAYS_MAX.get();
    while allowed < size {
        size /= 2;
    }
    (ARRAYS_MIN.get() <= size).then_some(Bytes::new(size))
}

/// The arrays, touched.
pub(super) struct Triad {
    arrays: Vec<f64>,
    /// Elements of one array, a multiple of [`SLICE`].
    length: usize,
    /// Whether huge pages were off before.
    huge_pages_were_off: bool,
}

impl Triad {
    /// Allocates and touches the arrays. `Err` is the reason why not.
    pub(super) fn new(memory_room: Option<Bytes>) -> Result<Self, String> {
        let Some(bytes) = array_bytes(memory_room) else {
            let room = memory_room.unwrap_or(Bytes::new(0));
            return Err(format!(
                "{room} of memory are free, the test wants a tenth of it to be at least {ARRAYS_MIN}"
            ));
        };
        let huge_pages_were_off = rustix::thread::transparent_huge_pages_are_disabled()
            .map_err(|error| format!("the mode of huge pages is unknown: {error}"))?;
        rustix::thread::disable_transparent_huge_pages(true)
            .map_err(|error| format!("huge pages cannot be switched off: {error}"))?;
        let elements = usize::try_from(bytes.get() / ELEMENT_BYTES / 3).map_err(|error| error.to_string())?;
        let length = (elements - GAP) / SLICE * SLICE;
        // Zeroed memory comes as untouched pages; writing to each of them is what makes them ours.
        let mut arrays = vec![0.0; 3 * length + 2 * GAP];
        arrays.fill(black_box(0.5));
        Ok(Self { arrays, length, huge_pages_were_off })
    }

    /// The score counts bytes: two loads and one store of eight bytes per element, as STREAM counts.
    pub(super) fn run(mut self, deadline: Duration) -> Done {
        let (a, rest) = self.arrays.split_at_mut(self.length + GAP);
        let (b, c) = rest.split_at(self.length + GAP);
        let scale = black_box(3.0);
        for slice in 0..SLICES {
            if deadline <= monotonic() {
                return None;
            }
            let from = slice * SLICE % self.length;
            let range = from..from + SLICE;
            triad(&mut a[range.clone()], &b[range.clone()], &c[range], scale);
        }
        black_box(&a[0]);
        Some((SLICES * SLICE) as f64 * 3.0 * ELEMENT_BYTES as f64)
    }
}

impl Drop for Triad {
    fn drop(&mut self) {
        // Setting back what was read a moment ago; if it fails, huge pages stay off, which harms nobody.
        rustix::thread::disable_transparent_huge_pages(self.huge_pages_were_off).unwrap_or_default();
    }
}

#[inline(never)]
fn triad(a: &mut [f64], b: &[f64], c: &[f64], scale: f64) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        *a = b + scale * c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_take_a_tenth_of_the_room_in_steps() {
        let mebi = |room| array_bytes(Some(Bytes::mebi(room)));
        assert_eq!(array_bytes(None), Some(Bytes::mebi(64)));
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
    fn the_arrays_stay_within_their_size() {
        for room in [None, Some(Bytes::mebi(400)), Some(Bytes::mebi(170))] {
            let triad = Triad::new(room).unwrap();
            assert!(triad.arrays.len() as u64 * ELEMENT_BYTES <= array_bytes(room).unwrap().get());
        }
    }
}
