//! One replica as a queue, and what it can take.

/// How long a replica takes from the wish to its first answer, uniformly between the two, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Startup {
    /// The least.
    pub from: f64,
    /// The most.
    pub to: f64,
}

/// Hours of the day (UTC) in which every replica has lost a share of its speed, and nothing says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dip {
    /// From this hour, 0 to 24.
    pub from_hour: f64,
    /// To this hour.
    pub to_hour: f64,
    /// What is lost, 0 to 1.
    pub lost: f64,
}

/// A replica: `workers` requests at a time, others wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// Requests that are worked on at the same time, one at least.
    pub workers: u32,
    /// Mean time of a request without waiting, in seconds.
    pub seconds: f64,
    /// Variance of that time over its squared mean.
    pub variation: f64,
    /// What the 95th percentile may be, in seconds.
    pub objective: f64,
    /// Use of the processor when every worker is busy, 0 to 1: of a service that waits for others less than all of it.
    pub processor: f64,
    /// When a new replica serves.
    pub startup: Startup,
    /// Replicas at the least and at the most.
    pub replicas: (u32, u32),
    /// When it is worse than it was.
    pub dip: Option<Dip>,
}

/// Requests that waited for so long are given up by who sent them.
pub(super) const TIMEOUT_SECONDS: f64 = 5.0;

/// 95 % of the standard normal distribution.
const NORMAL_95: f64 = 1.644_853_627;

/// The 95th percentile of answers is that of waiting, and this share of that of the work itself. At the percentile of one the other is
/// hardly ever at its own; with it the protocol's replica breaks its 250 ms at 0.741 of its workers, as it should.
const OF_WORK: f64 = 0.732;

impl Service {
    /// The one of the protocol: four workers, 50 ms, 250 ms for 95 %: 59.3 requests a second of 80.
    pub const PROTOCOL: Self = Self {
        workers: 4,
        seconds: 0.05,
        variation: 1.5,
        objective: 0.25,
        processor: 1.0,
        startup: Startup { from: 60.0, to: 120.0 },
        replicas: (3, 300),
        dip: None,
    };

    /// Requests a second with every worker busy.
    #[must_use]
    pub fn most(&self) -> f64 {
        f64::from(self.workers.max(1)) / self.seconds
    }

    /// The largest load of one replica, in requests per second, at which it keeps its objective; zero if it never does.
    #[must_use]
    pub fn knee(&self) -> f64 {
        self.knee_with(1.0)
    }

    /// The same with so much left of its speed.
    pub(super) fn knee_with(&self, left: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            if self.percentile(middle, left) <= self.objective { low = middle } else { high = middle }
        }
        low * left * self.most()
    }

    /// What is left of the capacity at an hour of the day.
    pub(super) fn left(&self, hour: f64) -> f64 {
        let is_in = |dip: &Dip| dip.from_hour <= hour && hour < dip.to_hour;
        self.dip.filter(is_in).map_or(1.0, |dip| 1.0 - dip.lost)
    }

    /// Probability that a request waits, when workers are busy for that share of the time (Erlang 1917).
    fn waits(&self, busy: f64) -> f64 {
        let workers = self.workers.max(1);
        let offered = busy * f64::from(workers);
        // Of a service that turns away whom it cannot serve at once; step by step, or a thousand workers are beyond any number.
        let lost = (1..=workers).fold(1.0, |lost, n| offered * lost / (f64::from(n) + offered * lost));
        lost / (1.0 - busy * (1.0 - lost))
    }

    /// The 95th percentile of the time until the answer, in seconds: M/G/k with an exponential tail, its rate corrected for the
    /// variation of the work (Allen & Cunneen). `left` is what is left of its speed.
    pub(super) fn percentile(&self, busy: f64, left: f64) -> f64 {
        let spread = (1.0 + self.variation).ln();
        let work = self.seconds / left * (NORMAL_95 * spread.sqrt() - spread / 2.0).exp();
        if 1.0 <= busy {
            return f64::INFINITY;
        }
        let rate = self.most() * left * (1.0 - busy) * 2.0 / (1.0 + self.variation);
        let waiting = (self.waits(busy) / 0.05).ln().max(0.0) / rate;
        work.max(waiting + OF_WORK * work)
    }

    /// Requests in a replica, those that wait included.
    pub(super) fn in_flight(&self, busy: f64) -> f64 {
        let busy = busy.min(0.995);
        let waiting = self.waits(busy) * busy / (1.0 - busy) * f64::midpoint(1.0, self.variation);
        f64::from(self.workers.max(1)) * busy + waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_of_the_protocol_is_at_three_quarters_of_its_workers() {
        let knee = Service::PROTOCOL.knee();
        assert!((knee - 59.3).abs() < 0.3, "{knee}");
        assert!((Service::PROTOCOL.most() - 80.0).abs() < 1e-9);
        let never = Service { objective: 0.1, ..Service::PROTOCOL };
        assert!(never.knee() < 1e-6, "its work alone takes longer");
    }

    #[test]
    fn erlang_agrees_with_a_hand_computed_case() {
        let one = Service { workers: 1, ..Service::PROTOCOL };
        assert!((one.waits(0.6) - 0.6).abs() < 1e-12, "of one worker it is how busy he is");
        let two = Service { workers: 2, ..Service::PROTOCOL };
        // a = 1: (1/2 / ½) / (1 + 1 + 1) = 1/3.
        assert!((two.waits(0.5) - 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn many_workers_hardly_ever_let_anybody_wait() {
        let many = Service { workers: 10_000, ..Service::PROTOCOL };
        let waits = many.waits(0.95);
        assert!((0.0..1e-3).contains(&waits) && many.in_flight(0.9).is_finite(), "{waits}");
        assert!(many.knee() / many.most() > 0.97, "{}", many.knee());
    }

    #[test]
    fn a_quarter_less_speed_costs_more_than_a_quarter_of_the_knee() {
        let left = Service::PROTOCOL.knee_with(0.75) / Service::PROTOCOL.knee();
        assert!((0.5..0.75).contains(&left), "its work takes longer, and the objective stays: {left}");
    }

    #[test]
    fn a_dip_is_of_its_hours() {
        let service =
            Service { dip: Some(Dip { from_hour: 9.0, to_hour: 21.0, lost: 0.25 }), ..Service::PROTOCOL };
        assert!((service.left(8.99) - 1.0).abs() < 1e-12 && (service.left(9.0) - 0.75).abs() < 1e-12);
    }
}
