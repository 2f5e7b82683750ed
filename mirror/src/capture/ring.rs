//! Packets from the kernel, by a ring of memory that both sides see (`AF_PACKET` with `TPACKET_V3`).
//!
//! <https://docs.kernel.org/networking/packet_mmap.html>. The kernel fills blocks and hands each over when it is full or
//! some milliseconds old; what finds no room is dropped there and counted, and live never waits. Needs `CAP_NET_RAW` in the
//! user namespace of the network.
#![expect(unsafe_code, reason = "memory shared with the kernel, and socket options that no library has")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::filter::{self, Op};
use crate::netns;

/// A packet may be as large as what the kernel has put together of many: 64 KiB and its headers. Every block takes one.
const BLOCK_BYTES: usize = 128 << 10;
/// 16 MiB: an eighth of a second, at a gigabit a second or with a packet a millisecond, each in a block of its own.
pub(crate) const BLOCKS: usize = 128;
/// What the kernel wants to know, and does not use in this version.
const FRAME_BYTES: usize = 2048;
/// How old a block may become that is not full, the least there is: what comes together from here reaches the shadow
/// together, and would wait for each other there.
const RETIRE_MS: u32 = 1;

/// Where things are in a block, and in the header of a packet; of `struct tpacket_block_desc`, `tpacket3_hdr` and
/// `sockaddr_ll`.
const STATUS: usize = 8;
const PACKETS: usize = 12;
const FIRST: usize = 16;
const NEXT: usize = 0;
const SECONDS: usize = 4;
const NANOSECONDS: usize = 8;
const CAPTURED: usize = 12;
const LENGTH: usize = 16;
const PACKET_STATUS: usize = 20;
const NETWORK: usize = 26;
const KIND: usize = 48 + 2;

/// A packet, from its network header on.
#[derive(Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    /// What it is, as a number of Ethernet.
    pub(crate) kind: u16,
    /// When the kernel saw it, since 1970.
    pub(crate) at: Duration,
    /// Whether the end of it is missing.
    pub(crate) is_cut: bool,
    /// Whether it came in a VLAN whose tag was taken off.
    pub(crate) is_tagged: bool,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Ring {
    socket: Socket,
    memory: NonNull<u8>,
    /// The block that comes next.
    next: usize,
}

// SAFETY: the memory belongs to this value alone, and nothing in it to a thread.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens a ring on one interface, or on all of them, of a network namespace, or of the own one. Nothing comes before
    /// [`Ring::choose`] says what.
    pub(crate) fn open(interface: Option<&str>, namespace: Option<&Path>) -> io::Result<Self> {
        // Without a protocol nothing is received, until it is bound.
        let make = || Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)));
        let (socket, index) = netns::within(namespace, || {
            let index = interface.map(nix::net::if_::if_nametoindex).transpose()?;
            Ok((make()?, index))
        })?;
        socket.attach_filter(&[filter::NOTHING.into()])?;
        set(&socket, libc::PACKET_VERSION, &TPACKET_V3)?;
        if interface == Some("lo") {
            // A copy less of every packet.
            set(&socket, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        }
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let request = libc::tpacket_req3 {
            tp_block_size: size(BLOCK_BYTES),
            tp_block_nr: size(BLOCKS),
            tp_frame_size: size(FRAME_BYTES),
            tp_frame_nr: size(BLOCK_BYTES / FRAME_BYTES * BLOCKS),
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        // SAFETY: a new mapping at a place that the kernel chooses; no memory of ours is touched.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                BLOCK_BYTES * BLOCKS,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &socket,
                0,
            )?
        };
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("the ring lies nowhere"))?;
        let ring = Self { socket, memory, next: 0 };
        ring.bind(index.unwrap_or(0))?;
        Ok(ring)
    }

    fn bind(&self, index: u32) -> io::Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: short(libc::AF_PACKET),
            sll_protocol: short(libc::ETH_P_ALL).to_be(),
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let size = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
        // SAFETY: `address` is a whole sockaddr_ll of that size, and only read during the call.
        let result = unsafe {
            libc::bind(self.socket.as_raw_fd(), (&raw const address).cast::<libc::sockaddr>(), size)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Lets the packets through that a program takes, from now on; the one before ends in the same moment.
    pub(crate) fn choose(&self, program: Vec<Op>) -> io::Result<()> {
        self.socket.attach_filter(&program.into_iter().map(SockFilter::from).collect::<Vec<_>>())
    }

    /// Hands the packets of the next block to `each` and gives the block back; `false` if there is none so far.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Packet<'_>)) -> bool {
        // SAFETY: `next` is below BLOCKS, so that the block lies within the mapping, which lives as long as this value.
        let block = unsafe { self.memory.add(self.next * BLOCK_BYTES) };
        // SAFETY: the status lies in the block, aligned to 4 bytes; both sides only ever use it as one whole word.
        let status = unsafe { AtomicU32::from_ptr(block.add(STATUS).cast().as_ptr()) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: as long as the status says so the block is ours, and the kernel writes nothing to it but to the status,
        // which nobody reads by this slice.
        let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), BLOCK_BYTES) };
        for packet in packets(bytes) {
            each(packet);
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % BLOCKS;
        true
    }

    /// Waits until there is something to read, or `bell` rings.
    pub(crate) fn wait(&self, bell: &impl AsFd, limit: Duration) -> io::Result<()> {
        let limit = limit.try_into().map_err(io::Error::other)?;
        let mut either = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        match poll(&mut either, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The interface is down, or gone: from here on nothing would come, or never again.
        if either[0].revents().contains(PollFlags::ERR) {
            return Err(self.socket.take_error()?.unwrap_or_else(|| io::ErrorKind::NetworkDown.into()));
        }
        Ok(())
    }

    /// Packets that found no room since the last call.
    pub(crate) fn dropped(&self) -> io::Result<u64> {
        let mut counts = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut size = libc::socklen_t::try_from(size_of_val(&counts)).unwrap_or_default();
        // SAFETY: the kernel writes `size` bytes at the most, which is how large `counts` is.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut size,
            )
        };
        if result == 0 { Ok(counts.tp_drops.into()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this size, and nothing refers to it any more: slices of it end with `read`.
        let unmapped = unsafe { munmap(self.memory.as_ptr().cast(), BLOCK_BYTES * BLOCKS) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "The ring stays in memory");
        }
    }
}

/// `enum tpacket_versions`.
const TPACKET_V3: i32 = 2;

/// A number of the kernel's that has 16 bits where it is used.
fn short(number: i32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

fn set<T>(socket: &Socket, option: i32, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: `value` is a whole `T`, plain data of that size, and only read during the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The packets of a block. What does not lie within it is left out: nothing the kernel says is taken on trust.
fn packets(block: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    let mut left = word(block, PACKETS).unwrap_or(0);
    let mut at = word(block, FIRST).map(|at| at as usize);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let header = block.get(at?..)?;
        let next = word(header, NEXT)? as usize;
        at = if next == 0 { None } else { at?.checked_add(next) };
        packet(header)
    })
}

fn packet(header: &[u8]) -> Option<Packet<'_>> {
    let (captured, length) = (word(header, CAPTURED)?, word(header, LENGTH)?);
    let network = usize::from(half(header, NETWORK)?);
    let bytes = header.get(network..)?.get(..captured as usize)?;
    let at = Duration::new(word(header, SECONDS)?.into(), word(header, NANOSECONDS)?.min(999_999_999));
    Some(Packet {
        bytes,
        kind: u16::from_be(half(header, KIND)?),
        at,
        is_cut: captured < length,
        is_tagged: word(header, PACKET_STATUS)? & libc::TP_STATUS_VLAN_VALID != 0,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}
