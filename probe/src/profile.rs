//! What the memory of an instance is like, from a random sample of its pages read twice.
//!
//! *Why a sample and not a snapshot*: a checkpoint froze live for 262 ms per 512 MiB and copied every secret; `clear_refs`
//! made its loop eight times slower. Reading one page in 160 costs some ms of ours and is not felt there.
//! *How*: addresses are drawn at random from the writable private mappings; those that are resident (`pagemap`) are read
//! with `process_vm_readv`, hashed, and read again after a pause. A page that is not resident is never touched: reading it
//! would make it so.
//! *What leaves*: counts. Hashes are compared and forgotten.
#![expect(unsafe_code, reason = "process_vm_readv is in no safe wrapper that reads into parts of one buffer")]

use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use foldhash::fast::RandomState;
use foreshadow_model::{Bytes, CgroupPaths, MemoryProfile, PageSample};
use nix::libc;

use crate::cgroup::{Version, limit, version_of};
use crate::clock::{monotonic, sleep_until, thread_cpu};
use crate::signals::parse;

/// Pages of one GiB at one in 160: with one in 128 it costs 12 ms of ours, with this eight.
const PAGES_MAX: usize = 1638;

/// Pages of a small instance, so that shares mean something.
const PAGES_MIN: usize = 256;

/// One page in so many is looked at.
const ONE_IN: u64 = 160;

/// Addresses that are tried for each page wanted: most of what is mapped may never have been touched.
const TRIES: usize = 8;

/// Pages read by one call.
const BATCH: usize = 64;

/// Of so many pages one is looked at for its density.
const DENSE_EVERY: usize = 16;

/// Bits in a byte from which a page counts as dense.
const DENSE_BITS: f64 = 7.2;

/// Processes of one instance that are looked at; more are left out.
const PROCESSES_MAX: usize = 64;

const PAGE: usize = 4096;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// None of its processes can be looked into.
    #[error("no process of the instance can be looked into")]
    NoProcess(#[source] io::Error),
}

/// One page of a process.
#[derive(Clone, Copy, Debug)]
struct Place {
    pid: u32,
    address: usize,
}

/// Takes a profile of the processes `pids`. Blocks for `pause`, between the two looks at each page.
///
/// What cannot be read (a process that has ended, pages without the right to see them) is left out.
///
/// # Errors
/// [`ProfileError::NoProcess`] if nothing is known of any of them.
pub fn profile(
    pids: &[u32],
    cgroup: Option<&CgroupPaths>,
    pause: Duration,
) -> Result<MemoryProfile, ProfileError> {
    let cpu_before = thread_cpu();
    let mut profile = MemoryProfile::default();
    let mut seen = Err(io::Error::from(io::ErrorKind::NotFound));
    let mut processes = Vec::new();
    for &pid in pids.iter().take(PROCESSES_MAX) {
        match sizes(pid) {
            Ok(sizes) => {
                seen = Ok(());
                add(&mut profile, &sizes);
                processes.push((pid, sizes[1]));
            }
            Err(error) if seen.is_err() => seen = Err(error),
            Err(_) => {}
        }
    }
    seen.map_err(ProfileError::NoProcess)?;
    let places = draw_from(&processes, profile.anonymous.get());
    of_cgroup(&mut profile, cgroup);
    let hasher = RandomState::default();
    let first = look(&places, &hasher, true);
    let (start, cpu) = (monotonic(), thread_cpu().saturating_sub(cpu_before));
    sleep_until(start.saturating_add(pause));
    let cpu_before = thread_cpu();
    let second = look(&places, &hasher, false);
    let span = monotonic().saturating_sub(start);
    profile.pages = compare(&first, &second, span);
    profile.cost_seconds = (cpu + thread_cpu().saturating_sub(cpu_before)).as_secs_f64();
    Ok(profile)
}

/// Resident anonymous, file and shared memory and what is swapped, of one process, from `status`: counted by the kernel
/// as it goes, unlike `smaps`, for which it walks all pages.
fn sizes(pid: u32) -> io::Result<[u64; 5]> {
    let text = fs::read(format!("/proc/{pid}/status"))?;
    let kibi = |key: &[u8]| parse::keyed(&text, key).unwrap_or(0).saturating_mul(1024);
    Ok([kibi(b"VmRSS:"), kibi(b"RssAnon:"), kibi(b"RssFile:"), kibi(b"RssShmem:"), kibi(b"VmSwap:")])
}

fn add(profile: &mut MemoryProfile, sizes: &[u64; 5]) {
    let sum = |a: Bytes, b: u64| Bytes::new(a.get().saturating_add(b));
    profile.resident = sum(profile.resident, sizes[0]);
    profile.anonymous = sum(profile.anonymous, sizes[1]);
    profile.file = sum(profile.file, sizes[2]);
    profile.shared = sum(profile.shared, sizes[3]);
    profile.swapped = sum(profile.swapped, sizes[4]);
}

fn of_cgroup(profile: &mut MemoryProfile, cgroup: Option<&CgroupPaths>) {
    let Some(directory) = cgroup.and_then(|paths| paths.memory.as_deref()) else { return };
    let Some(version) = version_of(directory) else { return };
    let number = |file: &str| fs::read(directory.join(file)).ok().and_then(|text| parse::number(&text));
    let stat = fs::read(directory.join("memory.stat")).unwrap_or_default();
    let keyed = |keys: [&[u8]; 2]| keys.into_iter().find_map(|key| parse::keyed(&stat, key));
    let (usage, max) = version.memory_files();
    let huge = match version {
        Version::V1 => [&b"total_rss_huge"[..], b"rss_huge"],
        Version::V2 => [&b"anon_thp"[..]; 2],
    };
    profile.huge = keyed(huge).map(Bytes::new);
    profile.limit = number(max).and_then(limit).map(Bytes::new);
    let unused = keyed([b"total_inactive_file", b"inactive_file"]);
    profile.working_set =
        number(usage).zip(unused).map(|(used, unused)| Bytes::new(used.saturating_sub(unused)));
}

/// Draws pages of all processes, each by its part of the whole: what a look costs does not depend on how many there are.
fn draw_from(processes: &[(u32, u64)], total: u64) -> Vec<Place> {
    let (mut random, mut places) = (Random::new(), Vec::new());
    let all = usize::try_from(total / PAGE as u64 / ONE_IN).unwrap_or(PAGES_MAX).clamp(PAGES_MIN, PAGES_MAX);
    for &(pid, anonymous) in processes {
        let part = anonymous.saturating_mul(all as u64) / total.max(1);
        draw(pid, usize::try_from(part).unwrap_or(all), &mut random, &mut places);
    }
    places
}

/// Draws so many resident pages of a process.
fn draw(pid: u32, wanted: usize, random: &mut Random, places: &mut Vec<Place>) {
    let process = format!("/proc/{pid}");
    let process = Path::new(&process);
    let (Ok(maps), Ok(pagemap)) = (fs::read(process.join("maps")), File::open(process.join("pagemap")))
    else {
        return;
    };
    let regions = parse::writable_regions(&maps);
    let total: u64 = regions.iter().map(|(start, end)| (end - start) / PAGE as u64).sum();
    if total == 0 {
        return;
    }
    let mut chosen = std::collections::BTreeSet::new();
    for _ in 0..wanted * TRIES {
        if wanted <= chosen.len() {
            break;
        }
        let address = nth_page(&regions, random.below(total));
        if is_resident(&pagemap, address) {
            chosen.insert(address);
        }
    }
    places.extend(
        chosen.into_iter().filter_map(|address| Some(Place { pid, address: usize::try_from(address).ok()? })),
    );
}

/// The address of the `n`th page of the regions.
fn nth_page(regions: &[(u64, u64)], n: u64) -> u64 {
    let mut left = n;
    for &(start, end) in regions {
        let pages = (end - start) / PAGE as u64;
        if left < pages {
            return start + left * PAGE as u64;
        }
        left -= pages;
    }
    0
}

fn is_resident(pagemap: &File, address: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    let mut entry = [0; 8];
    let at = address / PAGE as u64 * 8;
    pagemap.read_exact_at(&mut entry, at).is_ok() && u64::from_ne_bytes(entry) & PRESENT != 0
}

/// What a page showed.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    hash: u64,
    is_zero: bool,
    /// Of some pages alone.
    is_dense: Option<bool>,
}

/// Reads every place; `None` for one that cannot be read.
fn look(places: &[Place], hasher: &RandomState, with_density: bool) -> Vec<Option<Seen>> {
    let mut buffer = vec![0; BATCH * PAGE];
    let mut seen = Vec::with_capacity(places.len());
    for same_process in places.chunk_by(|a, b| a.pid == b.pid) {
        for batch in same_process.chunks(BATCH) {
            let read = read_pages(batch, &mut buffer);
            for (at, page) in buffer.chunks_exact(PAGE).take(batch.len()).enumerate() {
                let at_all = seen.len();
                seen.push((at < read).then(|| {
                    Seen {
                        hash: hasher.hash_one(page),
                        is_zero: page.iter().all(|&byte| byte == 0),
                        is_dense: (with_density && at_all.is_multiple_of(DENSE_EVERY))
                            .then(|| DENSE_BITS < bits_in_a_byte(page)),
                    }
                }));
            }
        }
    }
    seen
}

/// Reads pages of one process into the buffer, one after the other; returns how many could be read.
fn read_pages(places: &[Place], buffer: &mut [u8]) -> usize {
    let Some(pid) = places.first().and_then(|place| i32::try_from(place.pid).ok()) else { return 0 };
    let remote: Vec<libc::iovec> =
        places.iter().map(|place| libc::iovec { iov_base: place.address as *mut _, iov_len: PAGE }).collect();
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: places.len() * PAGE };
    // SAFETY: `local` is the buffer, which is at least as long and outlives the call; the kernel writes only there, and
    // checks the addresses of the other process itself.
    let read = unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as libc::c_ulong, 0)
    };
    usize::try_from(read).unwrap_or(0) / PAGE
}

/// Shannon's entropy of the bytes of a page.
fn bits_in_a_byte(page: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    page.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let total = f64::from(u32::try_from(page.len()).unwrap_or(u32::MAX));
    let shares = counts.iter().filter(|&&count| 0 < count).map(|&count| f64::from(count) / total);
    shares.map(|share| -share * share.log2()).sum()
}

#[expect(clippy::cast_precision_loss, reason = "some thousand pages")]
fn compare(first: &[Option<Seen>], second: &[Option<Seen>], span: Duration) -> Option<PageSample> {
    let both: Vec<(Seen, Seen)> =
        first.iter().zip(second).filter_map(|(first, second)| Some(((*first)?, (*second)?))).collect();
    let share = |count: usize, of: usize| if of == 0 { 0.0 } else { count as f64 / of as f64 };
    let dense: Vec<bool> = both.iter().filter_map(|(first, _)| first.is_dense).collect();
    (!both.is_empty()).then(|| PageSample {
        pages: u32::try_from(both.len()).unwrap_or(u32::MAX),
        span_seconds: span.as_secs_f64(),
        changed_share: share(
            both.iter().filter(|(first, second)| first.hash != second.hash).count(),
            both.len(),
        ),
        zero_share: share(both.iter().filter(|(first, _)| first.is_zero).count(), both.len()),
        dense_share: share(dense.iter().filter(|&&dense| dense).count(), dense.len()),
    })
}

/// Splitmix64 by Steele, Lea and Flood (2014), seeded by the hash keys of the process.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::default().hash_one(0))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests;
