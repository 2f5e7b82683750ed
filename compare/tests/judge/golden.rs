//! The golden vector: 2,000 ticks whose numbers must not change by a bit unless somebody means it.
//!
//! To regenerate: `UPDATE_GOLDEN=1 cargo test -p foreshadow-compare --test judge golden`, then look at the difference.
//! Exponentials and logarithms come from the platform's mathematics library; the vector was made on x86-64 Linux
//! (glibc) and is compared there only.

use std::fmt::Write as _;
use std::path::PathBuf;

use foreshadow_model::Assessment;

use crate::sim::{Nature, Sim, Trouble};

const HEADER: &str = "tick,x,n,load,r,z,R,C,state\n";

/// Healthy, a burst, gaps, a degradation, healing, failures.
fn trouble_at(tick: u64) -> Trouble {
    let mut trouble = Trouble::default();
    match tick {
        600..603 => trouble.live = 0.4,
        900..960 => trouble.live = 0.3,
        1500..1510 => trouble.live_errors = 0.2,
        1700..1760 => trouble.shadow = 0.4,
        _ => {}
    }
    trouble
}

fn row(x: f64, n: u32, load: u64, said: &Assessment) -> String {
    let bits = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{:016x}", v.to_bits()));
    let centre = &said.streams[0];
    format!(
        "{},{},{n},{load},{},{},{},{},{}\n",
        said.tick.0,
        bits(Some(x)),
        bits(centre.residual),
        bits(centre.whitened),
        bits(Some(centre.evidence)),
        bits(Some(centre.cusum)),
        said.verdict
    )
}

fn computed() -> String {
    let mut sim = Sim::new(Nature { pairs: 50, ..Nature::ROUGH }, 42);
    let mut rows = HEADER.to_owned();
    for tick in 0..2000 {
        let mut window = sim.window(&trouble_at(tick));
        window.reported = !(1200..1220).contains(&tick);
        let said = sim.judge.update(&window);
        let x = window.paired.mean().unwrap_or(0.0);
        write!(rows, "{}", row(x, window.paired.n, window.live_side.requests, &said)).unwrap();
    }
    rows
}

#[test]
#[cfg_attr(
    not(all(target_arch = "x86_64", target_env = "gnu")),
    ignore = "another mathematics library rounds differently"
)]
fn the_golden_vector_is_met_bit_for_bit() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden.csv");
    let computed = computed();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &computed).unwrap();
    }
    let golden = std::fs::read_to_string(&path).expect("run with UPDATE_GOLDEN=1 once");
    for (is, should) in computed.lines().zip(golden.lines()) {
        assert_eq!(is, should, "x, r, z, R and C are the bits of their f64 in hexadecimal");
    }
    assert_eq!(computed.lines().count(), golden.lines().count());
}
