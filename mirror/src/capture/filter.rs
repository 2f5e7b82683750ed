//! What the kernel hands over: a classic BPF program, and the same hash for whoever gets the packets.
//!
//! The program runs over every packet of the interface, so that what is not sampled costs live some dozens of
//! instructions and is never copied. It takes TCP of IPv4 and IPv6, in a VLAN or not, from or to a port of a live, of the
//! connections whose hash lies below the rate. The hash is the same in both directions, and keyed: nobody outside can
//! choose what is sampled. A higher rate only *adds* connections.

use std::net::{IpAddr, SocketAddr};

use foreshadow_model::SampleRate;
use nix::libc;
use socket2::SockFilter;

/// Ports that one program can tell apart: a jump of the classic BPF reaches 255 instructions far.
pub(crate) const PORTS_MAX: usize = 48;

const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;
const ETHERTYPE_VLAN: u32 = 0x8100;
const ETHERTYPE_VLAN_OUTER: u32 = 0x88a8;
const VLAN_TAG: u32 = 4;
const TCP: u32 = 6;

/// By what connections are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each is a session of its own.
    Connection,
    /// All of one client belong together.
    Client,
}

/// Which connections are handed over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Of lives, each once.
    pub(crate) ports: Vec<u16>,
    /// The highest rate of all of them.
    pub(crate) rate: SampleRate,
    pub(crate) unit: Unit,
    /// Key of the hash.
    pub(crate) seed: u32,
}

/// The share of hashes that a rate stands for, as the highest hash that belongs to it; `None` is none at all.
pub(crate) fn highest(rate: SampleRate) -> Option<u32> {
    let threshold = u32::try_from(rate.threshold() >> 32).unwrap_or(u32::MAX);
    (0 < threshold).then_some(threshold)
}

/// The number of a connection, the same in both directions.
pub(crate) fn hash(seed: u32, unit: Unit, a: SocketAddr, b: SocketAddr) -> u32 {
    let words = |ip: IpAddr| -> u32 {
        match ip {
            IpAddr::V4(ip) => ip.to_bits(),
            IpAddr::V6(ip) => {
                ip.octets().as_chunks::<4>().0.iter().fold(0, |all, &word| all ^ u32::from_be_bytes(word))
            }
        }
    };
    let ports = match unit {
        Unit::Connection => u32::from(a.port() ^ b.port()),
        Unit::Client => 0,
    };
    mixed(words(a.ip()) ^ words(b.ip()) ^ ports.wrapping_mul(SPREAD) ^ seed)
}

/// 2^32 divided by the golden ratio: neighbouring ports lie far apart.
const SPREAD: u32 = 0x9e37_79b1;
/// The finaliser of MurmurHash3: every bit of the input reaches every bit of the output.
const MIX: [(u32, u32); 2] = [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)];
const MIX_LAST: u32 = 16;

fn mixed(mut hash: u32) -> u32 {
    for (shift, factor) in MIX {
        hash = (hash ^ (hash >> shift)).wrapping_mul(factor);
    }
    hash ^ (hash >> MIX_LAST)
}

/// The program. A packet begins with its network header, as packet sockets of the type `SOCK_DGRAM` have it.
pub(crate) fn program(wanted: &Wanted) -> Vec<Op> {
    let Some(highest) = highest(wanted.rate).filter(|_| !wanted.ports.is_empty()) else {
        return vec![NOTHING];
    };
    let mut program = Vec::new();
    // What a host sends to itself is there twice, on its way out and in: once is enough.
    program.extend([
        ancillary(libc::SKF_AD_HATYPE),
        branch(libc::BPF_JEQ, u32::from(libc::ARPHRD_LOOPBACK), 0, 3),
        ancillary(libc::SKF_AD_PKTTYPE),
        branch(libc::BPF_JEQ, u32::from(libc::PACKET_OUTGOING), 0, 1),
        NOTHING,
    ]);
    for (tags, base) in [(0, 0), (1, VLAN_TAG)] {
        if tags == 0 {
            program.push(ancillary(libc::SKF_AD_PROTOCOL));
        } else {
            // A tag that the hardware did not take off lies before the network header, and says what follows it.
            program.extend([
                branch(libc::BPF_JEQ, ETHERTYPE_VLAN, 2, 0),
                branch(libc::BPF_JEQ, ETHERTYPE_VLAN_OUTER, 1, 0),
                NOTHING,
                op(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 2),
            ]);
        }
        for (ethertype, block) in
            [(ETHERTYPE_IPV4, ipv4(wanted, highest, base)), (ETHERTYPE_IPV6, ipv6(wanted, highest, base))]
        {
            program.push(branch(libc::BPF_JEQ, ethertype, 0, length(&block)));
            program.extend(block);
        }
    }
    program.push(NOTHING);
    program
}

fn ipv4(wanted: &Wanted, highest: u32, base: u32) -> Vec<Op> {
    let load = |size, at| op(libc::BPF_LD | size | libc::BPF_ABS, base + at);
    let mut block = vec![
        load(libc::BPF_B, 9),
        branch(libc::BPF_JEQ, TCP, 1, 0),
        NOTHING,
        // Of a packet in fragments only the first one has ports: it is left out, and missed by whoever reads the rest.
        load(libc::BPF_H, 6),
        branch(libc::BPF_JSET, 0x3fff, 0, 1),
        NOTHING,
        // X: the length of the network header.
        op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, base),
    ];
    let addresses = [load(libc::BPF_W, 12), take_x(), load(libc::BPF_W, 16), xor_x()];
    let port = |at| op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, base + at);
    block.extend(chosen(wanted, highest, [port(0), port(2)], addresses.into()));
    block
}

fn ipv6(wanted: &Wanted, highest: u32, base: u32) -> Vec<Op> {
    let load = |size, at| op(libc::BPF_LD | size | libc::BPF_ABS, base + at);
    // What has other headers before TCP is rare, and left out.
    let mut block = vec![load(libc::BPF_B, 6), branch(libc::BPF_JEQ, TCP, 1, 0), NOTHING];
    let mut addresses = vec![load(libc::BPF_W, 8)];
    for word in 1..8 {
        addresses.extend([take_x(), load(libc::BPF_W, 8 + 4 * word), xor_x()]);
    }
    let port = |at: u32| load(libc::BPF_H, 40 + at);
    block.extend(chosen(wanted, highest, [port(0), port(2)], addresses));
    block
}

/// Takes a packet if one of its ports is wanted and its hash is low enough. `addresses` leaves all words of them in A, put
/// together by exclusive or.
fn chosen(wanted: &Wanted, highest: u32, ports: [Op; 2], addresses: Vec<Op>) -> Vec<Op> {
    const SOURCE: u32 = 0;
    const PORTS: u32 = 1;
    let [source, target] = ports;
    let known = |rest: usize| {
        let all = wanted.ports.len();
        let ports = wanted.ports.iter().enumerate();
        ports.map(move |(at, port)| branch(libc::BPF_JEQ, u32::from(*port), distance(all - 1 - at + rest), 0))
    };
    let mut block = vec![source, op(libc::BPF_ST, SOURCE)];
    // Over the second list, its load, and the refusal after it.
    block.extend(known(wanted.ports.len() + 2));
    block.push(target);
    block.extend(known(1));
    block.push(NOTHING);
    // A is a port of either side from here on; both are needed.
    block.extend(match wanted.unit {
        Unit::Client => vec![op(libc::BPF_LD | libc::BPF_IMM, 0)],
        Unit::Connection => {
            vec![target, op(libc::BPF_LDX | libc::BPF_MEM, SOURCE), xor_x(), times(SPREAD)]
        }
    });
    block.push(op(libc::BPF_ST, PORTS));
    block.extend(addresses);
    block.extend([op(libc::BPF_LDX | libc::BPF_MEM, PORTS), xor_x()]);
    block.push(op(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_K, wanted.seed));
    for (shift, factor) in MIX {
        block.extend(folded(shift));
        block.push(times(factor));
    }
    block.extend(folded(MIX_LAST));
    block.extend([branch(libc::BPF_JGT, highest, 0, 1), NOTHING, WHOLE]);
    block
}

/// A := A ^ (A >> shift).
fn folded(shift: u32) -> [Op; 3] {
    [take_x(), op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, shift), xor_x()]
}

fn times(factor: u32) -> Op {
    op(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, factor)
}

/// X := A.
fn take_x() -> Op {
    op(libc::BPF_MISC | libc::BPF_TAX, 0)
}

/// A := A ^ X.
fn xor_x() -> Op {
    op(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0)
}

/// What the kernel knows of a packet beside its bytes.
fn ancillary(what: i32) -> Op {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (libc::SKF_AD_OFF + what).cast_unsigned())
}

/// The packet is not handed over.
pub(crate) const NOTHING: Op = Op { code: RETURN, yes: 0, no: 0, number: 0 };
/// All of it is.
const WHOLE: Op = Op { code: RETURN, yes: 0, no: 0, number: u32::MAX };
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// One instruction: an operation, where it goes on if a condition holds or not, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op {
    code: u16,
    yes: u8,
    no: u8,
    number: u32,
}

impl From<Op> for SockFilter {
    fn from(op: Op) -> Self {
        Self::new(op.code, op.yes, op.no, op.number)
    }
}

fn op(code: u32, number: u32) -> Op {
    Op { code: narrow(code), yes: 0, no: 0, number }
}

/// Compares A with a number and goes so many instructions further.
fn branch(compare: u32, number: u32, yes: u8, no: u8) -> Op {
    Op { code: narrow(libc::BPF_JMP | compare | libc::BPF_K), yes, no, number }
}

fn narrow(code: u32) -> u16 {
    u16::try_from(code).expect("codes of the classic BPF have 16 bits")
}

fn length(block: &[Op]) -> u8 {
    distance(block.len())
}

fn distance(instructions: usize) -> u8 {
    u8::try_from(instructions).expect("no block is longer than a jump with PORTS_MAX ports")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a machine that runs such programs would hand over of a packet, in bytes; knows just what is used here.
    fn run(program: &[Op], packet: &[u8], known: impl Fn(i32) -> u32) -> u32 {
        let (mut a, mut x, mut memory, mut at) = (0_u32, 0_u32, [0_u32; 16], 0);
        let bytes = |from: u32, n: usize| -> Option<u32> {
            let from = from as usize;
            Some(packet.get(from..from + n)?.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
        };
        loop {
            let Op { code, yes, no, number } = program[at];
            let code = u32::from(code);
            at += 1;
            let size = match code & 0x18 {
                libc::BPF_H => 2,
                libc::BPF_B => 1,
                _ => 4,
            };
            match (code & 0x07, code & 0xe0) {
                (libc::BPF_RET, _) => return number,
                (libc::BPF_LD, libc::BPF_ABS) if 0x8000_0000 <= number => {
                    a = known(number.cast_signed() - libc::SKF_AD_OFF);
                }
                (libc::BPF_LD, libc::BPF_ABS) => match bytes(number, size) {
                    Some(read) => a = read,
                    None => return 0,
                },
                (libc::BPF_LD, libc::BPF_IND) => match bytes(x + number, size) {
                    Some(read) => a = read,
                    None => return 0,
                },
                (libc::BPF_LD, libc::BPF_IMM) => a = number,
                (libc::BPF_LDX, libc::BPF_MSH) => match bytes(number, 1) {
                    Some(read) => x = 4 * (read & 0xf),
                    None => return 0,
                },
                (libc::BPF_LDX, libc::BPF_MEM) => x = memory[number as usize],
                (libc::BPF_ST, _) => memory[number as usize] = a,
                (libc::BPF_MISC, _) => x = a,
                (libc::BPF_ALU, _) => {
                    let by = if code & libc::BPF_X == 0 { number } else { x };
                    a = match code & 0xf0 {
                        libc::BPF_MUL => a.wrapping_mul(by),
                        libc::BPF_RSH => a >> by,
                        libc::BPF_XOR => a ^ by,
                        other => panic!("no such operation here: {other:#x}"),
                    };
                }
                (libc::BPF_JMP, _) => {
                    let holds = match code & 0xf0 {
                        libc::BPF_JEQ => a == number,
                        libc::BPF_JGT => a > number,
                        libc::BPF_JSET => a & number != 0,
                        other => panic!("no such jump here: {other:#x}"),
                    };
                    at += usize::from(if holds { yes } else { no });
                }
                other => panic!("no such operation here: {other:?}"),
            }
        }
    }

    /// A packet without a payload, and the number of its kind.
    fn packet(from: SocketAddr, to: SocketAddr, tagged: bool) -> (Vec<u8>, u32) {
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        let (header, kind) = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x46, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                header.extend([1; 4]); // An option, so that the length of the header matters.
                (header, ETHERTYPE_IPV4)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0, 0, 20, 6, 64];
                header.extend(from.octets());
                header.extend(to.octets());
                (header, ETHERTYPE_IPV6)
            }
            _ => unreachable!("both sides have addresses of one kind"),
        };
        let inner = u16::try_from(kind).unwrap().to_be_bytes();
        let tag: &[u8] = if tagged { &[0x20, 7, inner[0], inner[1]] } else { &[] };
        ([tag, &header, &ports, &[0; 16]].concat(), if tagged { ETHERTYPE_VLAN } else { kind })
    }

    fn takes(wanted: &Wanted, from: SocketAddr, to: SocketAddr, tagged: bool) -> bool {
        let (packet, kind) = packet(from, to, tagged);
        let known = |what| if what == libc::SKF_AD_PROTOCOL { kind } else { 0 };
        0 < run(&program(wanted), &packet, known)
    }

    fn wanted(ports: &[u16], rate: f64, unit: Unit) -> Wanted {
        Wanted { ports: ports.into(), rate: SampleRate::clamped(rate), unit, seed: 0x5eed_5eed }
    }

    fn peers() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        prop_oneof![
            any::<([u8; 4], [u8; 4], u16)>()
                .prop_map(|(a, b, port)| ((IpAddr::from(a), port).into(), (IpAddr::from(b), 8080).into())),
            any::<([u8; 16], [u8; 16], u16)>()
                .prop_map(|(a, b, port)| ((IpAddr::from(a), port).into(), (IpAddr::from(b), 8080).into())),
        ]
    }

    proptest! {
        #[test]
        fn kernel_and_program_choose_the_same(
            (client, live) in peers(), rate in 0.0..=1.0, of_client: bool, tagged: bool, others in 0..PORTS_MAX,
        ) {
            let unit = if of_client { Unit::Client } else { Unit::Connection };
            let mut ports: Vec<u16> = (1..=u16::try_from(others).unwrap()).collect();
            ports.insert(others / 2, 8080);
            ports.truncate(PORTS_MAX);
            let wanted = wanted(&ports, rate, unit);
            let number = hash(wanted.seed, unit, client, live);
            let expected = highest(wanted.rate).is_some_and(|highest| number <= highest);
            prop_assert_eq!(takes(&wanted, client, live, tagged), expected);
            prop_assert_eq!(takes(&wanted, live, client, tagged), expected, "both directions");
        }
    }

    #[test]
    fn other_ports_protocols_and_fragments_are_left_alone() {
        let all = wanted(&[8080], 1.0, Unit::Connection);
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let (client, live) = (at("10.0.0.1:4000"), at("10.0.0.2:8080"));
        assert!(takes(&all, client, live, false));
        assert!(!takes(&all, client, at("10.0.0.2:8081"), false));
        assert!(!takes(&wanted(&[8080], 0.0, Unit::Connection), client, live, false));
        assert!(!takes(&wanted(&[], 1.0, Unit::Connection), client, live, false));
        let (good, kind) = packet(client, live, false);
        let known = |what| if what == libc::SKF_AD_PROTOCOL { kind } else { 0 };
        let changed = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            run(&program(&all), &packet, known)
        };
        assert_eq!(
            (changed(9, 17), changed(6, 0x20), changed(7, 1)),
            (0, 0, 0),
            "UDP, first and later fragment"
        );
        assert_eq!(run(&program(&all), &good[..21], known), 0, "cut off");
        let outgoing_of_loopback = |what| match what {
            libc::SKF_AD_HATYPE => u32::from(libc::ARPHRD_LOOPBACK),
            libc::SKF_AD_PKTTYPE => u32::from(libc::PACKET_OUTGOING),
            _ => kind,
        };
        assert_eq!(run(&program(&all), &good, outgoing_of_loopback), 0);
    }

    #[test]
    fn ports_that_follow_each_other_are_spread_evenly_and_sets_are_nested() {
        let live: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let number = |port| hash(7, Unit::Connection, SocketAddr::new(live.ip(), port), live);
        let of = |rate| {
            let highest = highest(SampleRate::clamped(rate)).unwrap();
            (20_000..60_000).filter(|&port| number(port) <= highest).collect::<Vec<u16>>()
        };
        let (tenth, half) = (of(0.1), of(0.5));
        assert!((3_800..4_200).contains(&tenth.len()), "{}", tenth.len());
        assert!((19_600..20_400).contains(&half.len()), "{}", half.len());
        assert!(tenth.iter().all(|port| half.contains(port)));
    }
}
