//! A crowd of users: many at once, open loop, so that a slow service is not asked less; and what they felt.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::http::{Connection, PATIENCE, Request};

/// Users who may wait for an answer at the same time.
const USERS: u64 = 48;

/// Sessions; a prime, so that none of them asks for the same things all the time.
const SESSIONS: usize = 397;

/// Seconds within the objective, one after the other, that count as recovered.
const STEADY: usize = 3;

/// One answer, or its absence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it was due, since the load began.
    pub(crate) due: Duration,
    /// From then to the last byte.
    pub(crate) latency: Duration,
    /// The status; 0 without an answer.
    pub(crate) status: u16,
}

/// A load that runs until it is ended or dropped.
pub(crate) struct Crowd {
    began: Instant,
    stop: Arc<AtomicBool>,
    rate: Arc<AtomicU64>,
    answers: Arc<Mutex<Vec<Answered>>>,
    next: Arc<Mutex<Turn>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Asks for `requests` in turn, `rate` times a second, in the names of many.
    pub(crate) fn start(to: SocketAddr, rate: u64, requests: &[Request]) -> Self {
        let mut crowd = Self {
            began: Instant::now(),
            stop: Arc::default(),
            rate: Arc::new(AtomicU64::new(rate)),
            answers: Arc::default(),
            next: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..USERS {
            let user = User {
                connection: Connection::new(to),
                requests: requests.to_vec(),
                began: crowd.began,
                stop: crowd.stop.clone(),
                rate: crowd.rate.clone(),
                answers: crowd.answers.clone(),
                next: crowd.next.clone(),
            };
            crowd.threads.push(std::thread::spawn(move || user.run()));
        }
        crowd
    }

    /// From now on so many times a second.
    pub(crate) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Since the load began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Everything that was answered so far.
    pub(crate) fn answers(&self) -> Vec<Answered> {
        self.answers.lock().unwrap().clone()
    }

    /// What was answered so far of what was due in a span.
    pub(crate) fn due_in(&self, from: Duration, to: Duration) -> Vec<Answered> {
        let answers = self.answers.lock().unwrap();
        answers.iter().filter(|answer| from <= answer.due && answer.due < to).copied().collect()
    }

    /// Waits for the answers to what was due in a span: one that hangs is slow, and not absent.
    pub(crate) fn wait_for_answers(&self, from: Duration, to: Duration) {
        let until = self.now() + PATIENCE + Duration::from_secs(2);
        let is_waiting = || {
            let turn = self.next.lock().unwrap();
            turn.due < to || turn.under_way.iter().any(|due| (from..to).contains(due))
        };
        while is_waiting() && self.now() < until {
            sleep(Duration::from_millis(200));
        }
    }

    /// Waits for what is due and returns all answers.
    pub(crate) fn end(mut self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.answers()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap_or_default());
    }
}

/// Whose turn it is.
#[derive(Default)]
struct Turn {
    due: Duration,
    number: usize,
    /// When that was due which is not answered yet.
    under_way: Vec<Duration>,
}

struct User {
    connection: Connection,
    requests: Vec<Request>,
    began: Instant,
    stop: Arc<AtomicBool>,
    rate: Arc<AtomicU64>,
    answers: Arc<Mutex<Vec<Answered>>>,
    next: Arc<Mutex<Turn>>,
}

impl User {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let (due, number) = self.turn();
            sleep(due.saturating_sub(self.began.elapsed()));
            let request = self.requests[any(number, self.requests.len())]
                .clone()
                .header("x-session", format!("s{}", number % SESSIONS));
            let status = self.connection.ask(&request).map_or(0, |response| response.status);
            let latency = self.began.elapsed().saturating_sub(due);
            self.answers.lock().unwrap().push(Answered { due, latency, status });
            self.next.lock().unwrap().under_way.retain(|&other| other != due);
        }
    }

    /// Takes the next number; one after the other, spread a little, so that they do not march in step.
    fn turn(&self) -> (Duration, usize) {
        let mut turn = self.next.lock().unwrap();
        let gap = 1.0 / self.rate.load(Ordering::Relaxed) as f64;
        turn.number += 1;
        // The golden ratio's multiples fill the interval evenly and never repeat.
        let spread = (turn.number as f64 * 0.618_033_988_75).fract() * 1.2 + 0.4;
        turn.due += Duration::from_secs_f64(gap * spread);
        let due = turn.due;
        turn.under_way.push(due);
        (due, turn.number)
    }
}

/// Some number below `length`: in turn, two lives that take turns as well would never be asked the same.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
fn any(number: usize, length: usize) -> usize {
    ((number as f64 * std::f64::consts::SQRT_2).fract() * length as f64) as usize
}

/// Answers that were no success.
pub(crate) fn failures(answers: &[Answered]) -> usize {
    failed(answers).count()
}

fn failed(answers: &[Answered]) -> impl Iterator<Item = &Answered> {
    answers.iter().filter(|answer| !(200..400).contains(&answer.status))
}

/// When the first ones that were no success were due, how they ended, and after how long.
pub(crate) fn first_failures(answers: &[Answered]) -> String {
    let told = failed(answers).take(20).map(|answer| {
        let Answered { due, latency, status } = answer;
        format!("at {:.1} s {status} after {:.3} s", due.as_secs_f64(), latency.as_secs_f64())
    });
    told.collect::<Vec<_>>().join("; ")
}

/// For every whole second from `from` to `to`: whether fewer than `percent` in a hundred requests were answered well and
/// within `objective`.
pub(crate) fn violations(
    answers: &[Answered],
    (from, to): (Duration, Duration),
    objective: Duration,
    percent: usize,
) -> Vec<bool> {
    let seconds = to.saturating_sub(from).as_secs();
    (0..seconds)
        .map(|second| {
            let span = from + Duration::from_secs(second)..from + Duration::from_secs(second + 1);
            let due: Vec<&Answered> = answers.iter().filter(|answer| span.contains(&answer.due)).collect();
            let bad = due
                .iter()
                .filter(|answer| objective < answer.latency || !(200..400).contains(&answer.status))
                .count();
            due.len() * (100 - percent) < 100 * bad
        })
        .collect()
}

/// The first second from which the objective held again after it had been missed; `None` if it did not, and if it never
/// was missed.
pub(crate) fn recovered_after(violated: &[bool]) -> Option<usize> {
    let first = violated.iter().position(|&is| is)?;
    let steady = violated[first..].windows(STEADY).position(|seconds| seconds.iter().all(|&is| !is));
    steady.map(|at| first + at)
}

/// p95 of these answers.
pub(crate) fn p95(answers: &[Answered]) -> Duration {
    let mut latencies: Vec<Duration> = answers.iter().map(|answer| answer.latency).collect();
    latencies.sort();
    let rank = (latencies.len() * 95).div_ceil(100);
    latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
