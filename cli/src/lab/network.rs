//! The network fault: some packets to live's port are lost; where packet rules cannot be had, a proxy holds answers up.

use std::io;
use std::process::{Command, Stdio};

use super::proxy::Disturbance;
use super::undo::{Undo, remove_table};
use super::{InForce, LOST, RETRANSMISSION_MS, Target, disturb};

pub(crate) fn begin(target: &Target<'_>) -> io::Result<InForce> {
    let percent = LOST * 100.0;
    if let Ok(undo) = lose_packets(target) {
        let says = format!("loses {percent:.0} % of the packets that are sent to it, by a packet filter");
        return Ok(InForce { says, undo: vec![undo] });
    }
    let disturbance = Disturbance { stalls: LOST, stall_ms: RETRANSMISSION_MS, ..Disturbance::default() };
    let says = format!(
        "is {RETRANSMISSION_MS:.0} ms late with {percent:.0} % of its answers, as if packets were lost (no `nft` or not root), by a proxy"
    );
    disturb(target, &disturbance, says)
}

/// Packets to and from the port, dropped before live sees them. The table is named after the service, so that the next
/// run finds and removes what a crash left.
fn lose_packets(target: &Target<'_>) -> io::Result<Undo> {
    let table = format!("foreshadow_lab_{}", target.service.replace('-', "_"));
    remove_table(&table);
    let (port, percent) = (target.live.port, LOST * 100.0);
    let rules = format!(
        "add table inet {table}\n\
         add chain inet {table} to_live {{ type filter hook input priority 0; }}\n\
         add rule inet {table} to_live tcp dport {port} numgen random mod 100 < {percent:.0} drop\n\
         add rule inet {table} to_live tcp sport {port} numgen random mod 100 < {percent:.0} drop\n"
    );
    let status = Command::new("nft").arg(rules).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(Undo::Table(table)) } else { Err(io::Error::other("`nft` refused the rules")) }
}
