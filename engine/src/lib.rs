//! Wires the loop and starts every long-lived task.
//!
//! `cycle.rs` shows the whole product in one screen. Everything it calls is either pure (`observe`, `compare`, `decide`)
//! or a handle to a task that this crate started ([`run`]).

mod alone;
mod clock;
mod cycle;
mod deploy;
#[cfg(debug_assertions)]
mod die;
mod diverging;
mod doctor;
mod ground;
mod history;
mod judges;
mod knees;
mod limits;
mod lock;
mod memory;
mod mind;
mod mirror_process;
mod operator;
mod outlook;
mod plane;
mod press;
mod proposals;
mod reload;
mod remembered;
mod rescue;
mod restore;
mod run;
mod senses;
mod simulate;
mod status;
mod voice;

pub use alone::{AloneError, Audience, mirror_alone, mirror_socket};
pub use clock::unix_ms;
pub use cycle::CycleError;
pub use diverging::remembered_diverging;
pub use doctor::{Check, examine};
pub use lock::{LockError, is_held};
pub use proposals::{Proposal, propose};
pub use rescue::{RestoreError, Restored, restore};
pub use run::{Ended, RunError, run};
pub use simulate::{SimulateError, Simulated, StoryLine, StoryPoint, simulate, story_clock};

pub use foreshadow_compare as compare;
pub use foreshadow_config as config;
pub use foreshadow_forecast as forecast;
pub use foreshadow_mirror as mirror;
pub use foreshadow_model as model;
pub use foreshadow_platform::local::{LAUNCH_FAILED, NotReadyError, launch};
pub use foreshadow_probe as probe;
pub use foreshadow_serve::{
    Client, ClientError, Command, KneeWish, MirrorTotals, Prometheus, Range, RangeError, Refusal, Refused,
};
pub use foreshadow_store::{
    BackUpError, Copied, OpenStoreError, Overwrite, Query, ReadStoreError, Reader, RollUp, Sample, SeriesKey,
    Store, back_up,
};

use std::path::{Path, PathBuf};

/// Where the controller of a state folder listens.
#[must_use]
pub fn control_socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// Where history and journal of a state folder are.
#[must_use]
pub fn database(state: &Path) -> PathBuf {
    state.join("foreshadow.db")
}
