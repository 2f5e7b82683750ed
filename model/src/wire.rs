//! Messages between controller and mirror: JSON, one message a line, over a Unix socket of mode 0600.
//!
//! The controller pushes routings with a generation; the mirror streams one summary per tick, never payload. Either
//! side may restart at any time: a [`FromMirror::Hello`] opens every connection, and the controller answers with
//! the whole routing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Agreement, Bytes, CaptureLoss, Drops, FrontRules, Generation, InstanceId, LogMoments, MirrorPolicy,
    RedactPolicy, RouteRule, SampleRate, SessionKey, SideWindow, Speech, Weight,
};

/// Version of this protocol. A peer of another version is refused with both numbers.
pub const PROTOCOL: u32 = 5;

/// The longest line either side accepts, in bytes.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// How often one copy is sent, at the most.
pub const AMPLIFY_FACTOR_MAX: f64 = 100.0;
/// Requests per second that a shadow is offered, at the most.
pub const AMPLIFY_PER_SECOND_MAX: f64 = 100_000.0;
/// For how long, without being asked for again.
pub const AMPLIFY_LASTS_MAX: Duration = Duration::from_secs(600);

/// Where copies for one live go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShadowTarget {
    /// The shadow.
    pub id: InstanceId,
    /// Its address, in its own network namespace if it has one.
    pub address: SocketAddr,
    /// That namespace.
    pub netns: Option<PathBuf>,
    /// How it is spoken to.
    pub speech: Speech,
}

/// One live behind the balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// The live.
    pub id: InstanceId,
    /// Its address.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub speech: Speech,
    /// Its share of new requests relative to its peers.
    pub weight: Weight,
    /// Where its copies go; `None` mirrors nothing.
    pub shadow: Option<ShadowTarget>,
    /// The share of its requests that is mirrored.
    pub sample_rate: SampleRate,
}

/// How copies are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CopyRules {
    /// Copies per second for one shadow, at most. The rate is what keeps them below it; this is for what comes at once.
    pub copies_per_second: u32,
    /// Bytes of copies per second for one shadow, at most.
    pub copied_per_second: Bytes,
    /// Time that one shadow may be at copies in a second, those that it answers at once added up; `None` is no limit.
    pub time_per_second: Option<Duration>,
    /// Copies waiting for one shadow, at most.
    pub queue: u32,
    /// Bytes of copies waiting for all shadows, at most.
    pub queue_bytes: Bytes,
    /// Bytes of one copy, at most.
    pub copy_bytes: Bytes,
    /// How long a shadow may take.
    pub shadow_timeout: Duration,
    /// Where the key of a session is found.
    pub session: SessionKey,
    /// What is redacted beyond the built-in list.
    pub redact: RedactPolicy,
    /// Rules by path.
    pub routes: Vec<RouteRule>,
    /// Whether bodies of answers are compared, beside their status.
    pub compare_bodies: bool,
}

impl From<MirrorPolicy> for CopyRules {
    fn from(policy: MirrorPolicy) -> Self {
        Self {
            copies_per_second: policy.copies_per_second,
            copied_per_second: policy.copied_per_second,
            time_per_second: policy.time_per_second,
            queue: policy.queue,
            queue_bytes: policy.queue_bytes,
            copy_bytes: policy.copy_bytes,
            shadow_timeout: policy.shadow_timeout,
            session: policy.session,
            redact: policy.redact,
            routes: policy.routes,
            compare_bodies: policy.compare_bodies,
        }
    }
}

/// Everything the mirror must know; always whole, never a difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routing {
    /// A mirror ignores a routing that is not newer than its own.
    pub generation: Generation,
    /// The lives.
    pub upstreams: Vec<Upstream>,
    /// How users are let in.
    pub front: FrontRules,
    /// How copies are taken.
    pub copies: CopyRules,
    /// How often a summary is wanted.
    pub summary_every: Duration,
}

/// How much more a shadow is given to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Amplification {
    /// Each copy so many times; 1 is the end of it.
    Factor(f64),
    /// At a rate, copies included.
    PerSecond {
        /// Requests per second; 0 is the end of it.
        rate: f64,
        /// No more of those that are sent again are under way at the same time. What cannot be sent because of it counts as offered.
        under_way_max: u32,
    },
}

/// What the controller says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum ToMirror {
    /// Take over this routing.
    Route {
        /// The routing.
        routing: Box<Routing>,
    },
    /// Give the shadow of one live, or of all of them, more to do than its copies: safe requests are sent again.
    Amplify {
        /// Of this live; `None` is all.
        live: Option<InstanceId>,
        /// How much more.
        by: Amplification,
        /// For how long.
        lasts: Duration,
    },
    /// Accept nothing new, finish what runs, then exit.
    Drain {
        /// Give up waiting after this time.
        within: Duration,
    },
}

/// One live's part of a summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSummary {
    /// The live.
    pub live: InstanceId,
    /// The shadow its copies went to.
    pub shadow: Option<InstanceId>,
    /// What live answered.
    pub live_side: SideWindow,
    /// What the shadow answered.
    pub shadow_side: SideWindow,
    /// Agreeing pairs.
    pub paired: LogMoments,
    /// How far answers agreed.
    pub agreement: Agreement,
    /// Requests chosen for mirroring.
    pub sampled: u64,
    /// Bytes of the copies that were sent, heads and bodies.
    pub copied_bytes: u64,
    /// Copies that came to nothing.
    pub drops: Drops,
    /// The rate in force.
    pub sample_rate: SampleRate,
    /// Whether the mirror itself holds live back because it does not answer; never where the controller sends it nobody.
    pub ejected: bool,
    /// Connections that became something else than HTTP, such as WebSocket. None of their bytes are copied.
    pub upgraded: u64,
    /// Routes of which less is copied because they cost the shadow too much, and the part of each that is: 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub thinned: BTreeMap<String, f64>,
}

/// What was seen of the wire within a tick, where requests are captured there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaptureSummary {
    /// Connections that began to be followed.
    pub connections: u64,
    /// Connections that could not be read, or not any further, by reason. One that never happened is absent.
    pub lost: BTreeMap<CaptureLoss, u64>,
    /// Packets that found no room between the kernel and the mirror. Each costs its connection.
    pub packets_dropped: u64,
}

impl CaptureSummary {
    /// Counts a connection that cannot be read any further.
    pub fn count(&mut self, loss: CaptureLoss) {
        *self.lost.entry(loss).or_default() += 1;
    }

    /// Adds what another tick saw.
    pub fn merge(&mut self, other: &Self) {
        self.connections += other.connections;
        self.packets_dropped += other.packets_dropped;
        for (loss, n) in &other.lost {
            *self.lost.entry(*loss).or_default() += n;
        }
    }
}

/// What a log said within a tick, where requests are read from one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSummary {
    /// Lines with a request that may be sent again.
    pub requests: u64,
    /// Lines without one, by reason. A reason that never happened is absent.
    pub skipped: BTreeMap<String, u64>,
}

impl LogSummary {
    /// Adds what another tick said.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        for (why, n) in &other.skipped {
            *self.skipped.entry(why.clone()).or_default() += n;
        }
    }
}

/// What one tick looked like from the data plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Summary {
    /// The routing in force.
    pub generation: Generation,
    /// Seconds since the summary before.
    pub span_seconds: f64,
    /// Per live.
    pub upstreams: Vec<UpstreamSummary>,
    /// Requests that the mirror answered itself: 408, 501, 502, 503 or 504; and connections that were one too many.
    pub refused: u64,
    /// Cpu time of the mirror within the span, in seconds.
    pub cpu_seconds: f64,
    /// What was seen of the wire, where the mirror captures. Then the sides count sampled connections only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureSummary>,
    /// What a log said, where the mirror reads one. Then live is what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSummary>,
}

/// What the mirror says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum FromMirror {
    /// First message of every connection.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Process id.
        pid: u32,
        /// Where users connect.
        listen: SocketAddr,
        /// The routing in force.
        generation: Generation,
    },
    /// One tick.
    Summary {
        /// The tick.
        summary: Box<Summary>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let hello = FromMirror::Hello {
            protocol: PROTOCOL,
            pid: 7,
            listen: "127.0.0.1:8080".parse().unwrap(),
            generation: Generation(3),
        };
        let line = serde_json::to_string(&hello).unwrap();
        assert_eq!(
            line, r#"{"type":"hello","protocol":5,"pid":7,"listen":"127.0.0.1:8080","generation":3}"#,
            "the shape is a promise: change PROTOCOL with it"
        );
        assert_eq!(serde_json::from_str::<FromMirror>(&line).unwrap(), hello);
    }

    #[test]
    fn what_is_asked_of_shadows_survives_the_wire() {
        let order = |by| ToMirror::Amplify { live: None, by, lasts: Duration::from_secs(1) };
        for (by, wanted) in [
            (Amplification::Factor(4.0), r#""by":{"factor":4.0}"#),
            (
                Amplification::PerSecond { rate: 200.0, under_way_max: 75 },
                r#""by":{"perSecond":{"rate":200.0,"underWayMax":75}}"#,
            ),
        ] {
            let line = serde_json::to_string(&order(by)).unwrap();
            assert!(line.contains(wanted), "the shape is a promise: change PROTOCOL with it: {line}");
            assert_eq!(serde_json::from_str::<ToMirror>(&line).unwrap(), order(by));
        }
    }

    #[test]
    fn an_unknown_message_is_refused() {
        assert!(serde_json::from_str::<ToMirror>(r#"{"type":"shell","command":"rm"}"#).is_err());
    }
}
