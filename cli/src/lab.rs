//! The laboratory: faults that befall one live of a running controller, for the demo, the tests and curious operators.
//!
//! Every fault hits live alone and behind the controller's back, measures live first (a limit above what it uses would
//! do nothing), says what it does, and undoes itself when its [`InForce`] is dropped.

mod cgroup;
mod cpu;
mod fault;
pub(crate) mod hog;
mod memory;
mod network;
mod proxy;
mod storage;
mod trouble;
mod undo;

use std::io;
use std::path::Path;

use foreshadow_engine::model::Instance;

use crate::args::{Fault, LabVerb};
use crate::exit::Exit;
use crate::failure::Failure;
use proxy::Disturbance;
use undo::Undo;

/// Share of requests that a failing live answers with 503.
const FAILING: f64 = 0.2;

/// Share of packets that are lost on the way to live.
const LOST: f64 = 0.1;

/// What a lost packet costs until TCP sends it again, for the stand-in.
const RETRANSMISSION_MS: f64 = 200.0;

/// The hidden commands.
pub(crate) fn dispatch(verb: &LabVerb) -> Result<Exit, Failure> {
    match verb {
        LabVerb::Fault(args) => fault::run(args),
        LabVerb::Hog(args) => fault::hog(args),
        LabVerb::Proxy(args) => proxy::wrap(args),
        LabVerb::ProxyWorker(args) => proxy::work(args),
        LabVerb::Shadow(args) => trouble::run(args),
    }
}

/// What befalls whom.
pub(crate) struct Target<'a> {
    /// The live.
    pub(crate) live: &'a Instance,
    /// Its service: names what is left in the kernel.
    pub(crate) service: &'a str,
    /// Where the proxy in front of live looks for its disturbance, where there is a proxy.
    pub(crate) control: Option<&'a Path>,
}

/// A fault in force; ended when dropped, whatever foreshadow has made of it by then.
#[derive(Debug)]
pub(crate) struct InForce {
    /// What is done to live, as the rest of a sentence that begins with its name.
    pub(crate) says: String,
    undo: Vec<Undo>,
}

impl Drop for InForce {
    fn drop(&mut self) {
        self.undo.drain(..).for_each(Undo::run);
    }
}

/// Measures what live uses, in cores.
pub(crate) async fn cores_used(live: &Instance) -> io::Result<f64> {
    cgroup::per_second(|| cgroup::cpu_seconds(live)).await
}

/// What live may use, in cores; where no limit is in force, one, which is what its one thread can.
pub(crate) fn cores_allowed(live: &Instance) -> f64 {
    let limit = live.cgroup.as_ref().and(live.resources.cpu);
    limit.map_or(1.0, |cpu| cpu.cores())
}

/// Lets a fault befall a live.
///
/// # Errors
/// When live cannot be measured or disturbed this way; nothing is in force then.
pub(crate) async fn begin(fault: Fault, target: &Target<'_>) -> io::Result<InForce> {
    match fault {
        Fault::Cpu => cpu::begin(target.live).await,
        Fault::Memory if target.live.cgroup.is_none() => stand_in("a smaller memory limit", target),
        Fault::Memory => memory::begin(target.live),
        Fault::Storage if target.live.cgroup.is_none() => stand_in("a cap on its block I/O", target),
        Fault::Storage => storage::begin(target.live).await,
        Fault::Network => network::begin(target),
        Fault::Latency => slow(target),
        Fault::Errors => {
            let disturbance = Disturbance { errors: FAILING, ..Disturbance::default() };
            disturb(
                target,
                &disturbance,
                format!("answers {:.0} % of its requests with 503", FAILING * 100.0),
            )
        }
        Fault::Overload => {
            Err(io::Error::other("overload is made by asking for more, not by a fault of live"))
        }
    }
}

/// Twice as slow and at least 5 ms slower: what a test asserts must stand out of the noise of the machine.
fn slow(target: &Target<'_>) -> io::Result<InForce> {
    let disturbance = Disturbance { slower: 1.0, at_least_ms: 5.0, ..Disturbance::default() };
    disturb(
        target,
        &disturbance,
        "answers twice as slowly, and at least 5 ms later, by a proxy in front of it".into(),
    )
}

/// What is done instead where limits cannot be set.
fn stand_in(instead_of: &str, target: &Target<'_>) -> io::Result<InForce> {
    let mut in_force = slow(target)?;
    in_force.says += &format!(" (instead of {instead_of}: no cgroups here)");
    Ok(in_force)
}

fn disturb(target: &Target<'_>, disturbance: &Disturbance, says: String) -> io::Result<InForce> {
    let Some(control) = target.control else {
        return Err(io::Error::other(
            "no proxy stands in front of live: run it behind `foreshadow lab proxy`",
        ));
    };
    let file = disturbance.impose(control, target.live.port)?;
    Ok(InForce { says, undo: vec![Undo::Remove(file)] })
}
