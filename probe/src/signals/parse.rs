//! Parsers of the kernel's text files. Odd content gives `None`, never a panic, never a wrong sum.

/// One decimal number, alone or followed by blanks: `memory.current`, `cpuacct.usage`.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    digits(text.trim_ascii())
}

/// The number after `key` at the start of a line: `nr_throttled 12`, `MemAvailable:  1234 kB`.
pub(crate) fn keyed(text: &[u8], key: &[u8]) -> Option<u64> {
    lines(text).find_map(|line| {
        let rest = line.strip_prefix(key)?;
        rest.first()?.is_ascii_whitespace().then_some(rest)?;
        digits(words(rest).next()?)
    })
}

/// The total of the line of a pressure file that begins with `some ` or `full `, in microseconds.
pub(crate) fn pressure_total(text: &[u8], kind: &[u8]) -> Option<u64> {
    let line = lines(text).find(|line| line.starts_with(kind))?;
    words(line).find_map(|word| digits(word.strip_prefix(b"total=")?))
}

/// The `some avg10` of a pressure file, in percent.
pub(crate) fn pressure_avg10(text: &[u8]) -> Option<f64> {
    let line = lines(text).find(|line| line.starts_with(b"some "))?;
    let percent = words(line).find_map(|word| word.strip_prefix(b"avg10="))?;
    std::str::from_utf8(percent).ok()?.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

/// `cpu.max`: cores allowed, `None` if `max` or odd.
pub(crate) fn cpu_max(text: &[u8]) -> Option<f64> {
    let mut words = words(text);
    let (quota, period) = (digits(words.next()?)?, digits(words.next()?)?);
    cores(quota, period)
}

/// Quota over period, both in microseconds.
pub(crate) fn cores(quota: u64, period: u64) -> Option<f64> {
    (0 < period).then(|| quota as f64 / period as f64)
}

/// Time stolen from all processors together: the eighth number of the first line of `/proc/stat`, in ticks of 10 ms, which
/// is what the kernel shows to programs on every architecture we run on.
pub(crate) fn steal_us(text: &[u8]) -> Option<u64> {
    const TICK_US: u64 = 10_000;
    let line = lines(text).next()?.strip_prefix(b"cpu ")?;
    digits(words(line).nth(7)?)?.checked_mul(TICK_US)
}

/// Bytes in, bytes out, and packets dropped or broken, summed over the interfaces of `/proc/PID/net/dev` but the loopback,
/// over which a process talks to itself.
pub(crate) fn interfaces(text: &[u8]) -> Option<(u64, u64, u64)> {
    let mut all: Option<(u64, u64, u64)> = None;
    for line in lines(text) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        if line[..colon].trim_ascii() == b"lo" {
            continue;
        }
        let mut numbers = [0; 16];
        let mut found = words(&line[colon + 1..]);
        for number in &mut numbers {
            *number = digits(found.next()?)?;
        }
        let lost =
            [numbers[2], numbers[3], numbers[10], numbers[11]].into_iter().fold(0, u64::saturating_add);
        let sum = all.unwrap_or((0, 0, 0));
        all = Some((
            sum.0.saturating_add(numbers[0]),
            sum.1.saturating_add(numbers[8]),
            sum.2.saturating_add(lost),
        ));
    }
    all
}

/// The soft limit of open files in `/proc/PID/limits`.
pub(crate) fn open_files_limit(text: &[u8]) -> Option<u64> {
    let line = lines(text).find_map(|line| line.strip_prefix(b"Max open files"))?;
    digits(words(line).next()?)
}

/// Reads and writes, or their bytes, summed over devices: `8:0 Read 4096`, as the `blkio.throttle.` files have it.
pub(crate) fn blkio(text: &[u8]) -> Option<(u64, u64)> {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in lines(text) {
        let mut words = words(line);
        let (Some(_device), Some(operation), Some(bytes)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        match operation {
            b"Read" => read = read.checked_add(digits(bytes)?)?,
            b"Write" => written = written.checked_add(digits(bytes)?)?,
            _ => {}
        }
    }
    Some((read, written))
}

/// Two numbers, summed over devices: `8:0 rbytes=1 wbytes=2 rios=..`, as `io.stat` has it, with `rbytes=` and `wbytes=`.
pub(crate) fn io_stat(text: &[u8], keys: [&[u8]; 2]) -> Option<(u64, u64)> {
    let mut sums = [0_u64; 2];
    for word in lines(text).flat_map(words) {
        for (sum, key) in sums.iter_mut().zip(keys) {
            if let Some(number) = word.strip_prefix(key) {
                *sum = sum.checked_add(digits(number)?)?;
            }
        }
    }
    Some((sums[0], sums[1]))
}

/// The time a thread stood runnable without running, in nanoseconds: second word of `schedstat`.
pub(crate) fn run_delay(text: &[u8]) -> Option<u64> {
    let mut words = words(text);
    digits(words.next()?)?;
    digits(words.next()?)
}

/// Pages that had been thrown out and were needed again, from `memory.stat`: in two counters since kernel 5.9, in one
/// before; in version 1 with those of the children under `total_`. `None` where the kernel counts none of them.
pub(crate) fn refaults(text: &[u8]) -> Option<u64> {
    [&b"total_workingset_refault"[..], b"workingset_refault"].into_iter().find_map(|name| {
        let mut found: Option<u64> = None;
        for line in lines(text) {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let mut words =
                words(rest.strip_prefix(b"_anon").or(rest.strip_prefix(b"_file")).unwrap_or(rest));
            if let (Some(pages), None) = (words.next().and_then(digits), words.next()) {
                found = Some(found.unwrap_or(0).saturating_add(pages));
            }
        }
        found
    })
}

/// TCP segments sent, and those of them that were sent again, from `/proc/PID/net/snmp`: a line of names and a line of
/// numbers, both begun with `Tcp:`.
pub(crate) fn tcp_segments(text: &[u8]) -> Option<(u64, u64)> {
    let mut tcp = lines(text).filter_map(|line| line.strip_prefix(b"Tcp:"));
    let (names, numbers) = (tcp.next()?, tcp.next()?);
    let value = |wanted: &[u8]| {
        let place = words(names).position(|name| name == wanted)?;
        digits(words(numbers).nth(place)?)
    };
    Some((value(b"OutSegs")?, value(b"RetransSegs")?))
}

/// The private writable mappings of `/proc/PID/maps`, as start and end: heap, stacks, and what was mapped for data.
pub(crate) fn writable_regions(text: &[u8]) -> Vec<(u64, u64)> {
    let region = |line| {
        let mut words = words(line);
        let (range, rights) = (words.next()?, words.next()?);
        if rights != b"rw-p" {
            return None;
        }
        let (start, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        (start < end).then_some((start, end))
    };
    lines(text).filter_map(region).collect()
}

/// The process ids of `cgroup.procs`; zero stands for a process outside this namespace and is left out.
pub(crate) fn pids(text: &[u8]) -> impl Iterator<Item = u32> {
    lines(text).filter_map(|line| u32::try_from(number(line)?).ok()).filter(|&pid| pid != 0)
}

fn digits(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: [&[u8]; 2] = [b"rbytes=", b"wbytes="];

    #[test]
    fn the_node_and_its_interfaces_are_understood() {
        assert_eq!(steal_us(b"cpu  1 2 3 4 5 6 7 25 9 10\ncpu0 1\n"), Some(250_000));
        assert_eq!(steal_us(b"cpu  1 2\n"), None);
        let dev = b"Inter-| Receive\n face |bytes\n lo: 9 9 9 9 0 0 0 0 9 9 9 9 0 0 0 0\neth0: 10 1 2 3 0 0 0 0 20 1 4 5 0 0 0 0\n  v1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(interfaces(dev), Some((11, 22, 14)));
        assert_eq!(interfaces(b" lo: 9\n"), None);
        assert_eq!(interfaces(b"eth0: 1 2\n"), None);
        let limits = b"Limit Soft Hard Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
        assert_eq!(open_files_limit(b"Max open files unlimited unlimited files\n"), None);
    }

    #[test]
    fn kernel_files_are_understood() {
        assert_eq!(number(b"1234\n"), Some(1234));
        assert_eq!(number(b"max\n"), None);
        assert_eq!(number(b"-1\n"), None);
        assert_eq!(keyed(b"nr_periods 7\nnr_throttled 3\n", b"nr_throttled"), Some(3));
        assert_eq!(keyed(b"MemAvailable:    12 kB\n", b"MemAvailable:"), Some(12));
        assert_eq!(keyed(b"throttled_usec_x 3\n", b"throttled_usec"), None);
        let pressure = b"some avg10=0.32 avg60=3.55 avg300=2.65 total=20912442\nfull avg10=0.00 total=9\n";
        assert_eq!(pressure_total(pressure, b"some "), Some(20_912_442));
        assert_eq!(pressure_total(pressure, b"full "), Some(9));
        assert_eq!(pressure_avg10(pressure), Some(0.32));
        assert_eq!(pressure_avg10(b"some avg10=NaN\n"), None);
        assert_eq!(cpu_max(b"50000 100000\n"), Some(0.5));
        assert_eq!(cpu_max(b"max 100000\n"), None);
        assert_eq!(cpu_max(b"1 0\n"), None);
        assert_eq!(run_delay(b"115863 77 1\n"), Some(77));
        assert_eq!(pids(b"0\n12\n13\nx\n").collect::<Vec<_>>(), [12, 13]);
    }

    #[test]
    fn block_io_is_summed_over_devices() {
        let v1 = b"8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\n8:16 Write 2\nTotal 33\n";
        assert_eq!(blkio(v1), Some((11, 22)));
        assert_eq!(blkio(b"Total 0\n"), Some((0, 0)));
        let v2 = b"8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(io_stat(v2, BYTES), Some((11, 22)));
        assert_eq!(io_stat(v2, [b"rios=", b"wios="]), Some((1, 1)));
        assert_eq!(io_stat(b"8:0 rbytes=99999999999999999999 wbytes=1", BYTES), None);
    }

    #[test]
    fn refaults_are_summed_over_kinds_and_children() {
        assert_eq!(refaults(b"workingset_refault_anon 3\nworkingset_refault_file 4\n"), Some(7));
        assert_eq!(refaults(b"workingset_refault 5\nworkingset_activate 9\n"), Some(5));
        assert_eq!(refaults(b"workingset_refault 5\ntotal_workingset_refault 6\n"), Some(6));
        assert_eq!(refaults(b"pgmajfault 1\nworkingset_refault_anon\n"), None);
    }

    #[test]
    fn tcp_segments_are_found_by_name() {
        let text = b"Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn OutSegs RetransSegs\nTcp: 200 -1 70 3\nUdp: OutSegs\nUdp: 9\n";
        assert_eq!(tcp_segments(text), Some((70, 3)));
        assert_eq!(tcp_segments(b"Tcp: OutSegs RetransSegs\nTcp: 70\n"), None);
        assert_eq!(tcp_segments(b"Tcp: OutSegs\n"), None);
    }

    #[test]
    fn writable_private_mappings_are_found() {
        let maps = b"55d0-55d2 r--p 00000000 08:01 12  /bin/x\n7f00-7f10 rw-p 00000000 00:00 0 [heap]\n8000-9000 rw-s 0 00:01 5 /dev/shm/y\n9-8 rw-p 0\nzz rw-p\n";
        assert_eq!(writable_regions(maps), [(0x7f00, 0x7f10)]);
    }

    proptest! {
        #[test]
        fn odd_content_never_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (number(&text), keyed(&text, b"usage_usec"), pressure_total(&text, b"some "), cpu_max(&text));
            let _ = (steal_us(&text), interfaces(&text), open_files_limit(&text));
            let _ = (blkio(&text), io_stat(&text, BYTES), run_delay(&text), pids(&text).count());
            let _ = (refaults(&text), tcp_segments(&text), writable_regions(&text), pressure_avg10(&text));
        }

        #[test]
        fn nearly_right_content_never_panics(text in "(some |full |8:0 |Read |Write |rbytes=|wbytes=|total=|Tcp:|OutSegs |RetransSegs |workingset_refault|[0-9]{1,25}| |\n|max|-){0,20}") {
            let text = text.as_bytes();
            let _ = (number(text), keyed(text, b"some"), pressure_total(text, b"some "), cpu_max(text));
            let _ = (steal_us(text), interfaces(text), open_files_limit(text));
            let _ = (blkio(text), io_stat(text, BYTES), run_delay(text), pids(text).count());
            let _ = (refaults(text), tcp_segments(text));
        }

        #[test]
        fn what_was_written_is_read(value in any::<u64>()) {
            prop_assert_eq!(number(format!("{value}\n").as_bytes()), Some(value));
            prop_assert_eq!(pressure_total(format!("some avg10=0.00 total={value}\n").as_bytes(), b"some "), Some(value));
            prop_assert_eq!(keyed(format!("a 1\nusage_usec {value}\n").as_bytes(), b"usage_usec"), Some(value));
        }
    }
}
