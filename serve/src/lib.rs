//! What a running controller tells: the control socket, the API, metrics, alarms.
//!
//! * **The control socket** ([`listen`], [`serve`]): HTTP over a Unix socket of mode 0600. Only who may read the state
//!   folder may speak to it. It answers everything that can be read and takes commands: `foreshadow status`
//!   and every command that tells a running controller something are its clients ([`Client`]).
//! * **The API** ([`serve_api`]): the same reading routes over TCP on the loopback, for dashboards and scrapers.
//!   OpenAPI describes it ([`openapi`]). Under `/api/v1/` it speaks as Prometheus does, of a subset of PromQL.
//! * **Questions** to a Prometheus ([`Prometheus`]), for data that is judged afterwards.
//! * **Alarms** ([`Desk`], [`announce`]): from what ticks tell to a webhook and an Alertmanager.
//! * **Remote write** ([`write_remotely`]): the history to a Prometheus or whatever takes it.
//!
//! Nothing here holds up the loop: it hands values over and goes on.

mod alerts;
mod client;
mod command;
mod door;
mod feed;
mod host;
mod metrics;
mod mirror;
mod outward;
mod prometheus;
mod promql;
mod records;
mod remote_write;
mod routes;

pub use alerts::{Desk, Facts, ReceiverError, Receivers, World, announce};
pub use client::{Client, ClientError};
pub use command::{Command, Done, KneeWish, Refusal, Refused, Request};
pub use door::{listen, serve, serve_api};
pub use feed::Feed;
pub use mirror::{LiveTotals, MirrorTotals, serve_mirror};
pub use prometheus::{Points, Prometheus, Range, RangeError};
pub use records::{Backlog, JournalQuery, Records, RecordsError, SeriesRow, Step};
pub use remote_write::{RemoteTarget, RemoteWorld, Remotes, TargetError, write_remotely};
pub use routes::{Readings, openapi};
