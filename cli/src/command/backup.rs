//! `foreshadow backup` and `foreshadow restore`: a copy of history and journal, and the way back.

use std::time::Duration;

use foreshadow_engine::{BackUpError, Copied, Overwrite, RestoreError, database};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::args::{BackupArgs, RestoreArgs};
use crate::command::state_folder;
use crate::exit::Exit;
use crate::failure::Failure;

/// What is over sooner needs no picture of how far it is.
const QUIET: Duration = Duration::from_secs(2);

/// How often it is told how far it is where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(10);

pub(crate) fn back_up(args: &BackupArgs) -> Result<Exit, Failure> {
    let state = state_folder(&args.controller)?;
    let overwrite = if args.force { Overwrite::Always } else { Overwrite::Never };
    let mut progress = Progress::new();
    let copied = foreshadow_engine::back_up(&database(&state), &args.file, overwrite, |copied| {
        progress.tell(copied);
    });
    progress.end();
    let bytes = copied.map_err(|error| match &error {
        BackUpError::Exists { .. } => Failure::new(&error)
            .with_exit(Exit::Usage)
            .remedy("name another file, or give `--force` to replace it"),
        BackUpError::Open(_) => Failure::new(&error).remedy(
            "nothing was run with this state folder yet? `foreshadow run CONFIG` makes history and journal",
        ),
        _ => Failure::new(&error),
    })?;
    eprintln!("{} of history and journal are in `{}`", size(bytes), args.file.display());
    Ok(Exit::Fine)
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<Exit, Failure> {
    let state = state_folder(&args.controller)?;
    eprintln!(
        "checks `{}`, then puts it in the place of `{}`",
        args.file.display(),
        database(&state).display()
    );
    let mut progress = Progress::new();
    let restored = foreshadow_engine::restore(&args.file, &state, |copied| progress.tell(copied));
    progress.end();
    let restored = restored.map_err(|error| match &error {
        RestoreError::Lock { .. } => Failure::new(&error)
            .with_exit(Exit::Refused)
            .remedy("stop the controller first: `foreshadow stop`"),
        _ => Failure::new(&error).remedy("history and journal are as they were"),
    })?;
    eprintln!("{} of history and journal are back", size(restored.bytes));
    if let Some(aside) = restored.aside {
        eprintln!("what was there before is in `{}`; delete it once you do not need it", aside.display());
    }
    Ok(Exit::Fine)
}

/// Says on standard error how far it is, once it takes long.
struct Progress {
    begun: Instant,
    told: Duration,
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
        Self { begun: Instant::now(), told: QUIET, bar }
    }

    fn tell(&mut self, copied: Copied) {
        let elapsed = self.begun.elapsed();
        if elapsed < QUIET {
            return;
        }
        if self.told == QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(copied.of);
        self.bar.set_position(copied.bytes);
        if self.told <= elapsed {
            if self.bar.is_hidden() {
                eprintln!("{} of {} copied", size(copied.bytes), size(copied.of));
            }
            self.told = elapsed + TOLD_EVERY;
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// `12.3 MB`.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    if bytes < 1e6 { format!("{:.0} kB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
}
