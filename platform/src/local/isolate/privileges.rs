//! What a shadow that runs as root may still do.
//!
//! Namespaces alone would not hold root: it could mount the disk writable again or load a module. What is kept is
//! what services use on themselves (to bind a low port, to change user, to lock memory, to raise a limit of open
//! files); whatever reaches beyond the shadow is given up for good, and no program it starts gets it back.

use std::io;

use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::SYS_RESOURCE);

/// Gives up every capability but those of [`KEPT`], for this process and all that come of it.
///
/// # Errors
/// When one cannot be given up: a shadow that keeps it must not run.
pub(super) fn give_up() -> io::Result<()> {
    for (_, capability) in CapabilitySet::all().difference(KEPT).iter_names() {
        match remove_capability_from_bounding_set(capability) {
            // A kernel that does not know it cannot grant it either.
            Ok(()) | Err(Errno::INVAL) => {}
            // The bounding set only matters to root: others gain nothing by starting a program.
            Err(Errno::PERM) if !geteuid().is_root() => {}
            Err(error) => return Err(error.into()),
        }
    }
    clear_ambient_capability_set()?;
    let now = capabilities(None)?;
    let sets = CapabilitySets {
        effective: now.effective & KEPT,
        permitted: now.permitted & KEPT,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)?;
    Ok(set_no_new_privs(true)?)
}
