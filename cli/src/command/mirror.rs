//! `foreshadow mirror`: the mirror alone, led by a file.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr as _;

use foreshadow_engine::config::{Alone, Source, parse_alone};
use foreshadow_engine::mirror::log::Format;
use foreshadow_engine::mirror::{MirrorError, Running};
use foreshadow_engine::model::wire::{CaptureSummary, Summary, UpstreamSummary};
use foreshadow_engine::model::{Difference, Generation, LogHistogram, with_causes};
use foreshadow_engine::{AloneError, Audience, mirror_alone, unix_ms};
use serde_json::json;

use crate::args::{MirrorArgs, Output};
use crate::command::printer::Printer;
use crate::command::{absolute_folder, run::start_log};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::show;

pub(crate) fn mirror(args: &MirrorArgs) -> Result<Exit, Failure> {
    start_log();
    foreshadow_engine::mirror::harden();
    let config = read(&args.config)?;
    let running = if args.replace { Running::Replace } else { Running::Respect };
    let mut listener = Listener::new(args, &config);
    mirror_alone(&config, running, &mut listener).map_err(failure)?;
    Ok(Exit::Fine)
}

pub(crate) fn read(path: &Path) -> Result<Alone, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::unreadable(path, &error).remedy(
            "write one with at least `lives: [{ url: http://127.0.0.1:9001, shadow: http://127.0.0.1:9101 }]`",
        )
    })?;
    let log_format = |text: &str| Format::from_str(text).map(drop).map_err(|error| with_causes(&error));
    Ok(parse_alone(&text, &absolute_folder(path)?, log_format)
        .map_err(|error| error.in_file(path.display().to_string()))?)
}

fn failure(error: AloneError) -> Failure {
    let failure = Failure::new(&error);
    match &error {
        AloneError::Destination { .. } => failure.with_exit(Exit::Usage).remedy("write a name that this machine can look up, or an address"),
        AloneError::Mirror(MirrorError::Running { .. }) => failure
            .with_exit(Exit::Usage)
            .remedy("`--replace` takes its place, and no connection is refused; `kill -HUP` lets it read its file again"),
        AloneError::Mirror(MirrorError::Busy) => {
            failure.with_exit(Exit::Usage).remedy("wait until that one serves; `--replace` takes its place then")
        }
        AloneError::Mirror(MirrorError::Listen { address, .. }) | AloneError::Metrics { address, .. } => failure
            .with_exit(Exit::Usage)
            .remedy(format!("`ss -ltnp 'sport = :{}'` names who has the port", address.port())),
        AloneError::Mirror(MirrorError::Route(_)) => {
            failure.with_exit(Exit::Usage).remedy("mend the file that is named, or what `mirror` says of it")
        }
        AloneError::Mirror(MirrorError::Capture { source, .. }) => {
            let failure = failure.with_exit(Exit::Usage);
            match source.kind() {
                ErrorKind::PermissionDenied => failure.remedy(
                    "run it as root, or give it the one capability it needs: `setcap cap_net_raw+ep` on the binary, or `AmbientCapabilities=CAP_NET_RAW` in its unit; another namespace takes CAP_SYS_ADMIN as well",
                ),
                _ => failure.remedy("`ip -brief link` lists interfaces, `ip netns` namespaces; the kernel must have packet sockets"),
            }
        }
        AloneError::Mirror(MirrorError::Log(_)) => {
            failure.with_exit(Exit::Usage).remedy("give the path of an access log that this user may read")
        }
        AloneError::State { .. } | AloneError::Mirror(MirrorError::Socket { .. }) => {
            failure.with_exit(Exit::Usage).remedy("choose another `state` folder in the file")
        }
        _ => failure,
    }
}

/// What a line says of a live: its name here, and its address.
fn lives(config: &Alone) -> Vec<String> {
    config.lives.iter().map(|live| live.url.clone()).collect()
}

/// Whoever started it.
struct Listener<'a> {
    args: &'a MirrorArgs,
    lives: Vec<String>,
    /// Those of a file that was read and may yet be refused.
    pending: Option<(Vec<String>, Generation)>,
    generation: Generation,
    printer: Printer,
    /// How it comes by requests, where nobody connects.
    reads: &'static str,
}

impl Audience for Listener<'_> {
    fn read(&mut self) -> Result<Alone, String> {
        let config = read(&self.args.config).map_err(|failure| failure.to_string())?;
        self.pending = Some((lives(&config), self.generation));
        Ok(config)
    }

    fn serves(&mut self, listen: Option<SocketAddr>) {
        let lives = self.lives.len();
        match listen {
            Some(listen) => eprintln!(
                "Mirror serves at {listen}; {lives} lives. SIGHUP reads the file again, SIGTERM finishes what runs and ends it, a second one ends it at once."
            ),
            None => eprintln!(
                "Mirror {} what {lives} lives are asked and answer. SIGHUP reads the file again, SIGTERM ends it; users notice neither.",
                self.reads
            ),
        }
    }

    fn hear(&mut self, summary: &Summary, requests: u64) {
        self.generation = summary.generation;
        if let Some((lives, _)) = self.pending.take_if(|(_, before)| *before != summary.generation) {
            self.lives = lives;
        }
        self.printer.print(self.told(summary, requests));
    }
}

impl<'a> Listener<'a> {
    fn new(args: &'a MirrorArgs, config: &Alone) -> Self {
        let (lives, printer) = (lives(config), Printer::start());
        let reads = if let Source::Log { .. } = config.source { "reads in a log" } else { "captures" };
        Self { args, lives, pending: None, generation: Generation(0), printer, reads }
    }

    fn told(&self, summary: &Summary, requests: u64) -> String {
        let unix_ms = unix_ms();
        if let Output::Json = self.args.output {
            let line = json!({ "unixMs": unix_ms, "lives": self.lives, "summary": summary, "requestsTotal": requests });
            return format!("{line}\n");
        }
        let time = show::time(unix_ms);
        let are_asked = |live: &&UpstreamSummary| 0 < live.live_side.asked() + live.drops.total();
        let mut text = String::new();
        for (live, url) in summary.upstreams.iter().zip(&self.lives).filter(|(live, _)| are_asked(live)) {
            text +=
                &format!("{time}  {url}  {}\n", told(live, summary.span_seconds, summary.capture.is_some()));
        }
        if let Some(log) = summary.log.as_ref().filter(|log| !log.skipped.is_empty()) {
            let skipped: Vec<String> = log.skipped.iter().map(|(why, n)| format!("{n} {why}")).collect();
            text += &format!("{time}  lines left out: {}\n", skipped.join(", "));
        }
        if let Some(capture) = &summary.capture {
            text += &captured(capture).map(|what| format!("{time}  {what}\n")).unwrap_or_default();
        }
        if 0 < summary.refused {
            text += &format!("{time}  {} requests that the mirror answered itself\n", summary.refused);
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of some seconds")]
fn told(seen: &UpstreamSummary, span: f64, is_captured: bool) -> String {
    let live = &seen.live_side;
    let per_second = live.requests as f64 / span.max(1e-3);
    let mut text = format!("{per_second:.1}/s");
    let rate = seen.sample_rate.get();
    if is_captured && 0.0 < rate && rate < 1.0 {
        // Of the others not even their number is known.
        text += &format!(" seen of about {:.0}/s", per_second / rate);
    }
    if 0 < live.errors {
        text += &format!(", {} failed", live.errors);
    }
    // A log may say what was answered and not how soon.
    let is_untold = 0 < live.requests && live.latency.quantile(0.5).is_none();
    text +=
        &if is_untold { ", latency not told".to_owned() } else { format!(", {}", latencies(&live.latency)) };
    if let Some(shadow) = seen.shadow.as_ref().map(|_| &seen.shadow_side) {
        let share = 100.0 * seen.sampled as f64 / live.requests.max(1) as f64;
        let share = if is_captured { format!("{share:.0} % of those seen") } else { format!("{share:.1} %") };
        text += &format!(" | {} sampled ({share}), shadow {}", seen.sampled, latencies(&shadow.latency));
        if let Some(mean) = seen.paired.mean() {
            text += &format!(", live {:+.0} % against it", 100.0 * mean.exp_m1());
        }
        let different = seen.agreement.total() - seen.agreement.same;
        if 0 < different {
            text += &format!(", {different} answered otherwise");
        }
        for Difference { place, share } in seen.agreement.differing() {
            text += &format!(", {place} differs in {:.0} %", 100.0 * share);
        }
        for (route, share) in &seen.thinned {
            text += &format!(", {route} thinned to {:.0} %", 100.0 * share);
        }
        let drops: Vec<String> = seen.drops.0.iter().map(|(why, n)| format!("{n} {}", why.label())).collect();
        if !drops.is_empty() {
            text += &format!(", dropped: {}", drops.join(", "));
        }
    }
    if seen.ejected {
        text += " | passed over: refuses connections or does not answer";
    }
    text
}

/// What was not seen of the wire; `None` if that is nothing.
fn captured(seen: &CaptureSummary) -> Option<String> {
    let lost: Vec<String> = seen.lost.iter().map(|(why, n)| format!("{n} {}", why.label())).collect();
    let mut missed = Vec::new();
    if !lost.is_empty() {
        missed.push(format!(
            "connections not read: {} ({} new ones were seen)",
            lost.join(", "),
            seen.connections
        ));
    }
    if 0 < seen.packets_dropped {
        missed.push(format!("{} packets found no room", seen.packets_dropped));
    }
    (!missed.is_empty()).then(|| missed.join("; "))
}

fn latencies(histogram: &LogHistogram) -> String {
    let ms = |q: f64| {
        let ms = histogram.quantile(q)? / 1000.0;
        Some(if ms < 1.0 { format!("{ms:.2}") } else { format!("{ms:.1}") })
    };
    match (ms(0.5), ms(0.99)) {
        (Some(median), Some(p99)) => format!("p50 {median} p99 {p99} ms"),
        _ => "no answer yet".to_owned(),
    }
}
