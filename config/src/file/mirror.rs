//! `mirror`: what is copied to the shadows.

use std::time::Duration;

use foreshadow_model::{Bytes, MirrorPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Front;
use crate::names::{CookieName, HeaderName, UrlPath};
use crate::notation::{As, Located, Scalar, Text};
use crate::units::Percent;

/// What is copied to the shadows.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Mirror {
    /// The share of sessions that is mirrored.
    pub(crate) rate: Rate,
    /// Hard limits of the copies. What does not fit is dropped and counted; live never waits.
    pub(crate) budget: Budget,
    /// What makes requests one session: one of `cookie`, `header` and `clientAddress`. A session is mirrored whole or
    /// not at all. Default: the connection, which needs no knowledge of the service.
    pub(crate) session: Located<Session>,
    /// What must not leave with a copy, beyond the built-in list.
    pub(crate) redact: Redact,
    /// Rules by path; the longest that fits wins. Default: every path may be mirrored.
    pub(crate) routes: Vec<Route>,
    /// How long a shadow may take to answer. Default `10s`: longer than any answer a user would wait for.
    pub(crate) shadow_timeout: Scalar<Duration>,
    /// Whether the bodies of live's and the shadow's answers are compared, beside their status: by a number that is made of
    /// each, never kept; JSON of up to 32 KiB field by field as well. What differs between two lives as well is called noise.
    /// Default `false`: each byte of a sampled answer costs a nanosecond on the way to the
    /// user, of JSON some ten.
    pub(crate) compare_bodies: bool,
    /// How users are let in, and how long who waits for whom.
    pub(crate) front: Front,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            rate: Rate::default(),
            budget: Budget::default(),
            session: Located::unset(Session::default()),
            redact: Redact::default(),
            routes: Vec::new(),
            shadow_timeout: Scalar::of(MirrorPolicy::default().shadow_timeout),
            compare_bodies: MirrorPolicy::default().compare_bodies,
            front: Front::default(),
        }
    }
}

/// The share of sessions that is mirrored. It moves between these with the evidence that is still needed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Rate {
    /// The least, while calm. Default `1%`: enough to notice that something moves.
    pub(crate) min: Scalar<Percent>,
    /// The most, ever. Default `50%`: a shadow that is as strong as its live keeps room to spare.
    pub(crate) max: Scalar<Percent>,
}

impl Default for Rate {
    fn default() -> Self {
        let policy = MirrorPolicy::default();
        Self {
            min: Scalar::of(Percent::of_fraction(policy.rate_min.get())),
            max: Scalar::of(Percent::of_fraction(policy.rate_max.get())),
        }
    }
}

/// Hard limits of the copies.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Budget {
    /// Copies per second and pair, 1 or more. Default 200: a 5-second window then holds a thousand pairs, and more
    /// sharpen nothing.
    pub(crate) copies_per_second: Located<u32>,
    /// Bytes of copies per second and pair, one `copySize` or more. Default `8Mi`: less than a tenth of a network of 1
    /// Gbit/s.
    pub(crate) size_per_second: Scalar<Bytes>,
    /// Time that one shadow may be at copies per second, `10ms` or more; those that it answers at once are added up, so
    /// that `2s` is two of them on average. Above it the dearest routes are thinned, and the others kept whole. Default:
    /// no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_per_second: Option<Scalar<Duration>>,
    /// How much of its processor a shadow may use before less is mirrored, `1%` to `100%`; of its limit, or else of its
    /// node. Default `70%`: above it queues grow in the shadow that live does not have. Only with a controller, which
    /// measures it.
    pub(crate) utilisation: Scalar<Percent>,
    /// Copies waiting for one shadow, 1 or more. Default 1024: five seconds of the default rate.
    pub(crate) queue: Located<u32>,
    /// Bytes of copies waiting for all shadows, one `copySize` or more. Default `16Mi`: what 1024 copies of usual size
    /// need.
    pub(crate) queue_size: Scalar<Bytes>,
    /// Bytes of one copy, `1Ki` to `1Mi`. Default `64Ki`: larger requests are rare, and one
    /// alone would push many others out.
    pub(crate) copy_size: Scalar<Bytes>,
}

impl Default for Budget {
    fn default() -> Self {
        let policy = MirrorPolicy::default();
        Self {
            copies_per_second: Located::unset(policy.copies_per_second),
            size_per_second: Scalar::of(policy.copied_per_second),
            time_per_second: None,
            utilisation: Scalar::of(Percent::of_fraction(policy.utilisation)),
            queue: Located::unset(policy.queue),
            queue_size: Scalar::of(policy.queue_bytes),
            copy_size: Scalar::of(policy.copy_bytes),
        }
    }
}

/// What makes requests one session.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Session {
    /// The cookie of this name; a request without it falls back to its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cookie: Option<As<CookieName>>,
    /// The header of this name, in any case; a request without it falls back to its connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<As<HeaderName>>,
    /// The address of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_address: Option<bool>,
}

/// What must not leave with a copy, beyond the built-in list (authorization, cookies, keys, passwords, session
/// parameters, mail addresses, card and phone numbers, web tokens), which always becomes tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Redact {
    /// Becomes another value of the same length and shape; equal values stay equal, so caches and sessions of a shadow
    /// behave as live's do.
    pub(crate) tokenise: Hidden,
    /// Becomes stars: nothing can be told from it, not even that two values are equal.
    pub(crate) mask: Hidden,
    /// Is left out, its name with it.
    pub(crate) remove: Hidden,
    /// Words that become tokens wherever they stand but in `Host` and the headers about the form of an answer, in any
    /// case: names of customers, code names. Default: none.
    pub(crate) terms: Vec<Located<Text>>,
    /// Files by which messages of gRPC are read, relative to this file; `protoc --include_imports --descriptor_set_out`
    /// writes such files. Default: none, and then no call of gRPC is copied.
    pub(crate) descriptors: Vec<Located<Text>>,
}

/// Values by where they stand.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Hidden {
    /// Headers by name, in any case. Default: none beyond the built-in list.
    pub(crate) headers: Vec<As<HeaderName>>,
    /// Query parameters by name, in any case: `street` is also `address[street]` and `home.street`. Default: none beyond
    /// the built-in list.
    pub(crate) query: Vec<Located<Text>>,
    /// Fields of posted forms by name, likewise. Default: none beyond the built-in list.
    pub(crate) form: Vec<Located<Text>>,
    /// Values in JSON bodies by the names that lead to them, with dots between; `*` stands for any name or place in a
    /// list: `user.address`, `items.*.note`. Default: none beyond the built-in list.
    pub(crate) json: Vec<Located<Text>>,
    /// Fields of messages of gRPC, likewise, by the names that the descriptors give them. Default: none beyond the built-in
    /// list.
    pub(crate) grpc: Vec<Located<Text>>,
}

/// A rule for the requests whose path starts like this.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Route {
    /// The start of the path.
    pub(crate) path: Scalar<UrlPath>,
    /// Whether such requests may be copied.
    pub(crate) mirror: bool,
    /// Methods that are copied beside `GET`, `HEAD` and `OPTIONS`, because they have no side effects at this path and those
    /// below it: a search that is posted, a query in GraphQL, a call of gRPC. `POST`, `PUT`, `REPORT` and `SEARCH` may be named. Bodies are
    /// JSON, forms or gRPC, or not copied. Default: none, and then nothing that may
    /// change something reaches a shadow.
    #[serde(default)]
    pub(crate) methods: Vec<Located<Text>>,
}
