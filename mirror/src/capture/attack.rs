//! What attackers try: bytes as packets, and as what two sides say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::http1::Http1;
use super::http2::Http2;
use super::ring::Packet;
use super::said::{Lost, Side, tests::Notes};
use super::{Desk, FLOWS_MAX, Flows, WAITING_MAX};
use crate::table::Table;

/// Whom packets go to, or come from.
pub(crate) const LIVE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 80);

/// Records, each with a length of one byte before it.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first()?;
        let (record, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        Some(record)
    })
}

/// Packets, each a record: as it is, or after a short head of a segment to or from the live, which is filled up.
pub(crate) fn packets(table: &Arc<Table>, bytes: &[u8]) {
    let desk = Desk::new().expect("there are descriptors left");
    let mut flows = Flows::new(7, &desk, table.clone());
    let mut at = Duration::from_secs(1);
    for record in records(bytes) {
        let Some((kind, rest)) = record.split_first() else { continue };
        at += Duration::from_millis(u64::from(kind >> 2) * 40);
        let (bytes, kind) = match kind % 4 {
            0 => (rest.to_vec(), 0x86dd),
            1 => (rest.to_vec(), 0x8100),
            _ => (segment(rest), 0x0800),
        };
        flows.take(&Packet { bytes: &bytes, kind, at, is_cut: false, is_tagged: record.len() % 2 == 0 });
        assert!(flows.flows.len() <= FLOWS_MAX);
        assert_eq!(flows.waiting, flows.flows.values().map(super::Flow::waiting).sum::<usize>());
        assert!(flows.waiting <= WAITING_MAX);
    }
    flows.look();
    let seen = desk.counts.take();
    assert!(seen.lost.values().sum::<u64>() <= 2 * seen.connections, "{seen:?}");
}

/// A packet of IPv4 of one of a few clients: whose, which way, flags, where it lies; then what it carries.
fn segment(record: &[u8]) -> Vec<u8> {
    let Some(([who, flags, sequence, acknowledged], payload)) = record.split_first_chunk::<4>() else {
        return record.to_vec();
    };
    let client = (10_u8, 4000 + u16::from(who & 0x3));
    let builder = |from: [u8; 4], to: [u8; 4], ports: (u16, u16)| {
        let builder = etherparse::PacketBuilder::ipv4(from, to, 64);
        builder.tcp(ports.0, ports.1, 1000 + u32::from(*sequence), 1024)
    };
    let (one, other) = ([10, 0, 0, client.0], [10, 0, 0, 2]);
    let mut builder = match who & 0x4 {
        0 => builder(one, other, (client.1, LIVE.port())),
        _ => builder(other, one, (LIVE.port(), client.1)),
    };
    for (bit, set) in [(1, 0), (2, 1), (4, 2), (8, 3)] {
        if flags & bit != 0 {
            builder = match set {
                0 => builder.syn(),
                1 => builder.ack(1000 + u32::from(*acknowledged)),
                2 => builder.fin(),
                _ => builder.rst(),
            };
        }
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).expect("a short payload fits");
    packet
}

/// Says a conversation, whose records are one side's or the other's as their first bit says, to a parser: whole, and in
/// pieces of one byte, which must be heard as the same, as far as they can be read.
fn cut_anywhere<P>(
    bytes: &[u8],
    parser: impl Fn() -> P,
    say: impl Fn(&mut P, Side, &[u8], &mut Notes) -> Result<(), Lost>,
) {
    let hear = |size| {
        let (mut parser, mut notes) = (parser(), Notes::default());
        let result = records(bytes).filter_map(<[u8]>::split_first).try_for_each(|(first, said)| {
            let side = if first & 1 == 0 { Side::Client } else { Side::Live };
            said.chunks(size).try_for_each(|piece| say(&mut parser, side, piece, &mut notes))
        });
        (notes.0, result)
    };
    let (whole, pieces) = (hear(usize::MAX), hear(1));
    assert_eq!(whole, pieces);
}

pub(crate) fn http1(bytes: &[u8]) {
    cut_anywhere(bytes, Http1::default, |http, side, said, notes| match side {
        Side::Client => http.client(said, notes),
        Side::Live => http.live(said, notes),
    });
}

pub(crate) fn http2(bytes: &[u8]) {
    cut_anywhere(bytes, Http2::new, |http, side, said, notes| match side {
        Side::Client => http.client(said, notes),
        Side::Live => http.live(said, notes),
    });
}
