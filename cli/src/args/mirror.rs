//! What can be typed after `mirror`, and after what works on copies: `amplify`, `replay`, `redact`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Output;

const FORMATS: &str = "\
Only GET, HEAD and OPTIONS are sent; secrets in them are replaced. A log has no cookies, no authorization and no bodies:
answers may differ from those in the log. Ended by SIGINT or SIGTERM it tells what came of it and ends with 130.

Formats:
  auto                  whichever of the next four fits a line
  combined, common, vhost
                        what Apache and nginx write when nobody said otherwise; fields may follow
  envoy                 what Envoy writes when nobody said otherwise
  json                  an object a line, with the names that Caddy, nginx and Envoy are mostly given
  json:time=ts,method=verb,target=url,latency=took:ms
                        an object a line with these names; dots lead into objects; also request, path,
                        query, status, host, referer, agent
  '$remote_addr [$time_local] \"$request\" $status'
                        the log_format of nginx, as it was written
  '%h %l %u %t \"%r\" %>s %b'
                        the LogFormat of Apache, as it was written
  '[%START_TIME%] %REQ(:METHOD)% %REQ(:PATH)%'
                        the format string of Envoy, as it was written";

/// Arguments of `amplify`.
#[derive(Debug, ClapArgs)]
pub(crate) struct AmplifyArgs {
    /// The file of a mirror that stands alone, or of a controller.
    #[arg(default_value = "mirror.yaml")]
    pub(crate) config: PathBuf,
    /// By how much, such as `4x`; up to 100x.
    #[arg(long)]
    pub(crate) factor: String,
    /// For how long, up to 10m.
    #[arg(long = "for", default_value = "30s")]
    pub(crate) lasts: String,
    /// Copies of this live alone, such as `live-1`; of all without it.
    #[arg(long)]
    pub(crate) live: Option<String>,
}

/// Arguments of `mirror`.
#[derive(Debug, ClapArgs)]
pub(crate) struct MirrorArgs {
    /// Its file, such as config/examples/mirror.yaml. Read again at every SIGHUP.
    #[arg(default_value = "mirror.yaml")]
    pub(crate) config: PathBuf,
    /// Take the place of the mirror that serves this file already; no connection is refused and no request lost.
    #[arg(long)]
    pub(crate) replace: bool,
    /// How to print what happened.
    #[arg(short, long, value_enum, default_value_t = Output::Human)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = FORMATS)]
pub(crate) struct ReplayArgs {
    /// The access log; `-` is standard input (`zcat access.log.1.gz | foreshadow replay - ...`).
    pub(crate) log: PathBuf,
    /// Where requests go, a path in front of theirs included.
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
    /// How many times as fast as in the log.
    #[arg(long, default_value = "1x")]
    pub(crate) speed: String,
    /// How its lines are written; see below.
    #[arg(long, default_value = "auto")]
    pub(crate) format: String,
    /// Begin at the end of the file and go on as it grows, over rotation and truncation; with `-`: it is written now.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Requests per second that are never passed (`100/s`); what is over it is left out and counted.
    #[arg(long, value_name = "RATE")]
    pub(crate) rate_max: Option<String>,
    /// The host to ask for, whatever the log says; else that of the log, or of the address.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Rules beyond the built-in ones for what must not leave: a file with what may stand at `mirror.redact`.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Send requests as users would. Else they are marked as copies, and foreshadow does not mirror them again.
    #[arg(long)]
    pub(crate) unmarked: bool,
    /// Pauses that are longer than this are cut to it; at the speed they are replayed.
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    pub(crate) gap_max: String,
    /// Requests under way at the same time; more are left out and counted.
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) in_flight: u16,
    /// How long an answer may take.
    #[arg(long, value_name = "SPAN", default_value = "30s")]
    pub(crate) patience: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RedactArgs {
    /// Rules beyond the built-in ones: a file with what may stand at `mirror.redact` of a configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) rules: Option<PathBuf>,
    /// The rules of this configuration.
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MirrorWorkerArgs {
    /// Where users connect; without it standard input is that socket already.
    #[arg(long)]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the controller connects.
    #[arg(long)]
    pub(crate) socket: PathBuf,
    /// Threads on the live path.
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: usize,
}
