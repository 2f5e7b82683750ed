//! One direction of a TCP connection, put together again from segments.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// Bytes that may wait for what comes before them, in one direction. A window is seldom larger.
const WAITING_MAX: usize = 4 << 20;
/// For how long. What is sent again takes a fifth of a second at least, and twice that for each time more.
const HOLE_MAX: Duration = Duration::from_secs(3);

/// Something is missing for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

/// What a segment costs beside its bytes.
const SEGMENT_BYTES: usize = 128;

/// One direction. Positions are numbers of bytes since its first one.
pub(crate) struct Stream {
    /// The sequence number of the first byte.
    first: u32,
    /// What comes next.
    next: u64,
    /// What came too early.
    waiting: BTreeMap<u64, Bytes>,
    bytes: usize,
    hole_since: Option<Duration>,
    end: Option<u64>,
}

impl fmt::Debug for Stream {
    /// Without what was said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({} bytes, {} wait, redacted)", self.next, self.bytes)
    }
}

impl Stream {
    /// A direction whose first byte has this number.
    pub(crate) fn new(first: u32) -> Self {
        Self { first, next: 0, waiting: BTreeMap::new(), bytes: 0, hole_since: None, end: None }
    }

    /// The first byte's number.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// The next byte's number.
    fn expected(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers begin anew after 4 GiB")]
        self.first.wrapping_add(self.next as u32)
    }

    /// Where a segment lies; it may begin before what comes next.
    fn place(&self, sequence: u32) -> i128 {
        i128::from(self.next) + i128::from(sequence.wrapping_sub(self.expected()).cast_signed())
    }

    /// Bytes that wait, and what keeping them costs.
    pub(crate) fn waiting(&self) -> usize {
        self.bytes + SEGMENT_BYTES * self.waiting.len()
    }

    /// Whether the other side has had so many bytes of it.
    pub(crate) fn has_been_acknowledged(&self, acknowledged: u32, bytes: u64) -> bool {
        i128::from(bytes) <= self.place(acknowledged)
    }

    /// Whether something is missing so far.
    pub(crate) fn has_hole(&self) -> bool {
        self.waiting.keys().next().is_some_and(|first| self.next < *first)
    }

    /// Whether all of it was seen.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= self.next)
    }

    /// The direction ends after this segment.
    pub(crate) fn ends_after(&mut self, sequence: u32, length: usize) {
        if let Ok(end) = u64::try_from(self.place(sequence) + length as i128) {
            self.end = Some(end);
        }
    }

    /// The part of a segment that comes next, if it is the next one and nothing waits: the usual case, without a copy.
    pub(crate) fn next_of<'a>(&mut self, sequence: u32, payload: &'a [u8]) -> Option<&'a [u8]> {
        if !self.waiting.is_empty() {
            return None;
        }
        let skipped = usize::try_from(i128::from(self.next) - self.place(sequence)).ok()?;
        let fresh = payload.get(skipped..).unwrap_or_default();
        self.next += fresh.len() as u64;
        Some(fresh)
    }

    /// Keeps a segment until it is its turn.
    ///
    /// # Errors
    /// When too much waits, or for too long.
    pub(crate) fn keep(&mut self, sequence: u32, payload: &[u8], at: Duration) -> Result<(), Gap> {
        let place = self.place(sequence);
        let skipped = usize::try_from(i128::from(self.next) - place).unwrap_or(0);
        let Some(fresh) = payload.get(skipped..).filter(|fresh| !fresh.is_empty()) else { return Ok(()) };
        let place = u64::try_from(place).unwrap_or(0).max(self.next);
        let longest = self.waiting.get(&place).is_none_or(|known| known.len() < fresh.len());
        if longest {
            let before = self.waiting.insert(place, Bytes::copy_from_slice(fresh));
            self.bytes += fresh.len() - before.map_or(0, |before| before.len());
        }
        if WAITING_MAX < self.waiting() {
            return Err(Gap);
        }
        self.look(at)
    }

    /// Whether what is missing may still come.
    pub(crate) fn look(&mut self, at: Duration) -> Result<(), Gap> {
        if !self.has_hole() {
            self.hole_since = None;
            return Ok(());
        }
        let since = *self.hole_since.get_or_insert(at);
        if HOLE_MAX < at.saturating_sub(since) { Err(Gap) } else { Ok(()) }
    }

    /// Whether the other side has had more than was seen here, and nothing of it waits.
    pub(crate) fn is_behind(&self, acknowledged: u32) -> bool {
        i128::from(self.next) + (self.bytes as i128) + 1 < self.place(acknowledged)
    }

    /// What was kept and comes next.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        loop {
            let (place, bytes) = self.waiting.pop_first()?;
            if self.next < place {
                self.waiting.insert(place, bytes);
                return None;
            }
            self.bytes -= bytes.len();
            let skipped = usize::try_from(self.next - place).unwrap_or(usize::MAX);
            if skipped < bytes.len() {
                let fresh = bytes.slice(skipped..);
                self.next += fresh.len() as u64;
                return Some(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    /// Reads segments, each given by its place and length, and returns what came of them.
    fn read(text: &[u8], first: u32, segments: &[(usize, usize)]) -> Result<Vec<u8>, Gap> {
        let mut stream = Stream::new(first);
        let mut read = Vec::new();
        for &(at, length) in segments {
            let payload = &text[at.min(text.len())..(at + length).min(text.len())];
            let sequence = first.wrapping_add(u32::try_from(at).unwrap());
            if let Some(fresh) = stream.next_of(sequence, payload) {
                read.extend_from_slice(fresh);
            } else {
                stream.keep(sequence, payload, NOW)?;
            }
            while let Some(fresh) = stream.take() {
                read.extend_from_slice(&fresh);
            }
        }
        assert_eq!(stream.waiting() == 0, !stream.has_hole());
        Ok(read)
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_order_is_the_text_from_its_beginning(
            text in proptest::collection::vec(any::<u8>(), 0..200),
            first: u32,
            segments in proptest::collection::vec((0_usize..200, 0_usize..60), 0..40),
        ) {
            let got = read(&text, first, &segments).unwrap();
            prop_assert!(text.starts_with(&got));
            // As far as segments reach without a hole.
            let mut reach = 0;
            loop {
                let further = segments.iter().filter(|(at, _)| *at <= reach).map(|(at, n)| (at + n).min(text.len()));
                match further.max() {
                    Some(end) if reach < end => reach = end,
                    _ => break,
                }
            }
            prop_assert_eq!(got.len(), reach);
        }
    }

    #[test]
    fn what_stays_away_is_a_gap() {
        let mut stream = Stream::new(u32::MAX - 2);
        assert_eq!(stream.next_of(u32::MAX - 2, b"abcd"), Some(&b"abcd"[..]), "over the end of the numbers");
        assert_eq!(stream.next_of(3, b"x"), None);
        stream.keep(3, b"x", NOW).unwrap();
        assert!(stream.has_hole());
        assert_eq!(stream.keep(4, b"y", NOW + Duration::from_secs(4)), Err(Gap));
        let mut stream = Stream::new(0);
        let large = vec![0; WAITING_MAX - SEGMENT_BYTES];
        stream.keep(10, &large, NOW).unwrap();
        assert_eq!(stream.keep(5, b"12345", NOW), Err(Gap));
    }

    #[test]
    fn the_end_is_reached_once_all_was_seen() {
        let mut stream = Stream::new(0);
        stream.ends_after(4, 4);
        assert!(!stream.is_over());
        stream.next_of(0, b"12345678").unwrap();
        assert!(stream.is_over());
        let mut stream = Stream::new(0);
        assert!(!stream.is_behind(1), "the end counts as one");
        assert!(stream.is_behind(5));
        stream.next_of(0, b"12345").unwrap();
        assert!(!stream.is_behind(5));
    }
}
