//! One TCP segment of a packet.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::ring::Packet;

/// A segment, as far as it is needed here.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: Flags,
    pub(crate) payload: &'a [u8],
    pub(crate) at: Duration,
    /// Whether the end of it is missing.
    pub(crate) is_cut: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "they are bits of a header, each by itself")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) syn: bool,
    pub(crate) ack: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
}

impl<'a> Segment<'a> {
    /// The segment of a packet; `None` if it is none, or not whole.
    pub(crate) fn of(packet: &Packet<'a>) -> Option<Self> {
        // Tags that nobody took off come before the network header.
        let sliced = LaxSlicedPacket::from_ether_type(EtherType(packet.kind), untagged(packet));
        let is_incomplete = sliced.ip_payload().is_some_and(|payload| payload.incomplete);
        let (from, to): (IpAddr, IpAddr) = match sliced.net? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                if header.more_fragments() || header.fragments_offset().value() != 0 {
                    return None;
                }
                (header.source_addr().into(), header.destination_addr().into())
            }
            LaxNetSlice::Ipv6(ip) => {
                (ip.header().source_addr().into(), ip.header().destination_addr().into())
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { return None };
        Some(Self {
            from: (from, tcp.source_port()).into(),
            to: (to, tcp.destination_port()).into(),
            sequence: tcp.sequence_number(),
            acknowledged: tcp.acknowledgment_number(),
            flags: Flags { syn: tcp.syn(), ack: tcp.ack(), fin: tcp.fin(), rst: tcp.rst() },
            payload: tcp.payload(),
            at: packet.at,
            is_cut: packet.is_cut || is_incomplete || sliced.stop_err.is_some(),
        })
    }
}

/// The packet from its network header on. Of two tags the kernel takes one off and tells the kind of what stands behind both
/// (since 6.10): the other one is still there then.
fn untagged<'a>(packet: &Packet<'a>) -> &'a [u8] {
    const TAG_BYTES: usize = 4;
    let version = match EtherType(packet.kind) {
        EtherType::IPV4 => 4,
        EtherType::IPV6 => 6,
        _ => return packet.bytes,
    };
    match packet.bytes.split_at_checked(TAG_BYTES) {
        Some(([_, _, kind @ ..], rest))
            if packet.is_tagged
                && *kind == packet.kind.to_be_bytes()
                && rest.first().is_some_and(|first| first >> 4 == version) =>
        {
            rest
        }
        _ => packet.bytes,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn a_segment_is_read_of_both_kinds_of_ip() {
        let v4 = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let v6 = PacketBuilder::ipv6([1; 16], [2; 16], 64);
        for (builder, kind) in [(v4, EtherType::IPV4), (v6, EtherType::IPV6)] {
            let builder = builder.tcp(4000, 8080, 7, 100).ack(9);
            let mut bytes = Vec::new();
            builder.write(&mut bytes, b"GET /").unwrap();
            // What is padded to the shortest frame of Ethernet is no payload.
            bytes.extend([0; 6]);
            let at = Duration::from_secs(1);
            let packet = Packet { bytes: &bytes, kind: kind.0, at, is_cut: false, is_tagged: false };
            let segment = Segment::of(&packet).unwrap();
            assert_eq!((segment.from.port(), segment.to.port()), (4000, 8080));
            assert_eq!((segment.sequence, segment.acknowledged, segment.payload), (7, 9, &b"GET /"[..]));
            assert_eq!((segment.flags, segment.is_cut), (Flags { ack: true, ..Flags::default() }, false));
            for end in 0..bytes.len() - 7 {
                let packet = Packet { bytes: &bytes[..end], ..packet };
                assert!(Segment::of(&packet).is_none_or(|segment| segment.is_cut), "cut at {end}");
            }
        }
    }
}
