//! The starter file: every line says where its value comes from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::init::process::{Found, Used, places};

/// The least that is proposed: smaller limits throttle a start-up.
const CPU_MIN: u64 = 250;

/// The least memory that is proposed, in MiB.
const MEMORY_MIN: u64 = 128;

/// The file for what was found, to stand in `folder`.
pub(crate) fn render(found: &Found, listen: SocketAddr, folder: &Path) -> String {
    let command: Vec<String> =
        found.command.iter().map(|word| quoted(&with_port(word, found.port))).collect();
    let sections = [
        "# Made by `foreshadow init`. Every key is explained in config/examples/reference.yaml.\n".to_owned(),
        format!("service: {}\n", service(&found.command)),
        "# observe: watch, decide, say what would be done. Write `act` once you trust it.\nmode: observe\n".into(),
        address(found, listen),
        format!(
            "platform:\n  type: local\n  local:\n{}    command: [{}]\n    workdir: {}\n{}{}{}{}{}",
            about_port(found),
            command.join(", "),
            quoted(&found.workdir.to_string_lossy()),
            environment(found),
            "    # Lives share the users; with two, one can be relieved or replaced without anybody noticing.\n    lives: 2\n",
            "    # CHECK: with `ready: { http: /healthz }` an instance gets requests once it answers, not once it listens.\n    ready: { tcp: true }\n",
            resources(found.used),
            storage(&found.written, folder),
        ),
        "# A shadow is shut in. What it must reach to answer like its live, it may reach if it is named here.\n# shadow:\n#   egress: { allow: [\"127.0.0.1:5432\"] }\n".into(),
        "# Paths that must not be copied to a shadow. Only GET, HEAD and OPTIONS ever are.\n# mirror:\n#   routes:\n#     - { path: /admin, mirror: false }\n".into(),
    ];
    sections.join("\n")
}

/// The name of the program or of the script it runs, as far as a name of a service may look like it.
fn service(command: &[String]) -> String {
    let stem = |word: &String| Path::new(word).file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
    let script = command
        .iter()
        .skip(1)
        .find(|word| word.ends_with(".py") || word.ends_with(".js") || word.ends_with(".rb"));
    let module = command.iter().skip_while(|word| *word != "-m").nth(1);
    let name = script.or(module).or(command.first()).and_then(stem).unwrap_or_default();
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let safe = safe.trim_matches(|c: char| c == '-' || c.is_ascii_digit()).to_owned();
    if safe.is_empty() { "service".into() } else { safe }
}

/// The word with the number of the port taken out of it.
fn with_port(word: &str, port: Option<u16>) -> String {
    let Some(port) = port else { return word.to_owned() };
    let length = port.to_string().len();
    let mut text = word.to_owned();
    let places: Vec<usize> = places(word, port).collect();
    for at in places.into_iter().rev() {
        text.replace_range(at..at + length, "$PORT");
    }
    text
}

fn address(found: &Found, listen: SocketAddr) -> String {
    let own = found.port.map_or_else(String::new, |port| {
        format!("; when the process that was looked at is stopped, its own port {port} may be taken instead")
    });
    format!("# CHECK: users connect here, and are spread over the lives{own}.\nlisten: {listen}\n")
}

fn about_port(found: &Found) -> String {
    let replaced =
        found.port.is_some_and(|port| found.command.iter().any(|word| places(word, port).next().is_some()));
    let mut text = match found.port {
        Some(port) if replaced => format!("    # It listens on {port}; every instance gets a port of its own in place of it: $PORT.\n"),
        Some(port) if found.port_from_environment => {
            format!("    # It listens on {port}, which came as PORT in its environment; every instance gets its own there.\n")
        }
        Some(port) => format!("    # CHECK: it listens on {port}, which the command does not name. Make it listen on $PORT: several instances must run side by side.\n"),
        None => "    # CHECK: no port was found. Every instance must listen on 127.0.0.1 at $PORT, from an argument or from the environment.\n".into(),
    };
    if !found.other_ports.is_empty() {
        let others: Vec<String> = found.other_ports.iter().map(u16::to_string).collect();
        text += &format!(
            "    # CHECK: it listens on {} as well, which a second instance cannot.\n",
            others.join(", ")
        );
    }
    text
}

/// Names only: values may be secrets, and a file is read by many.
fn environment(found: &Found) -> String {
    if found.environment_lacked.is_empty() {
        return String::new();
    }
    let names = found.environment_lacked.join(", ");
    format!(
        "    # CHECK: instances inherit foreshadow's environment. Start foreshadow with these as well, or set them under `env:` here: {names}\n"
    )
}

fn resources(used: Option<Used>) -> String {
    let Some(Used { cores, memory_bytes }) = used else {
        return "    # CHECK: limits of one instance; without them no larger size can be given. Twice of what it uses is a good start.\n    # resources: { cpu: 500m, memory: 256Mi }\n".into();
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "cores of one machine")]
    let milli = (cores.max(0.0) * 1000.0).round() as u64;
    let cpu = (milli * 2).div_ceil(50) * 50;
    let mebibytes = memory_bytes.div_ceil(1 << 20);
    let memory = (mebibytes * 2).div_ceil(64) * 64;
    format!(
        "    # CHECK: limits of one instance, twice of what it used while it was looked at ({milli}m, {mebibytes}Mi): look at it under load.\n    resources: {{ cpu: {}m, memory: {}Mi }}\n",
        cpu.max(CPU_MIN),
        memory.max(MEMORY_MIN)
    )
}

fn storage(written: &[PathBuf], folder: &Path) -> String {
    let mut paths: Vec<PathBuf> = Vec::new();
    for file in written {
        let path = whole(file, written, folder);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return "    # CHECK: it had no file open for writing. What it writes to now and then belongs here; a shadow gets a copy.\n    # storage: [./data]\n".into();
    }
    let paths: Vec<String> = paths.iter().map(|path| quoted(&path.to_string_lossy())).collect();
    format!(
        "    # CHECK: what it had open for writing. A shadow gets a copy of its own, so it must not be huge.\n    storage: [{}]\n",
        paths.join(", ")
    )
}

/// A database comes with its journal: their folder, unless this file's own state would be in it.
fn whole(file: &Path, written: &[PathBuf], folder: &Path) -> PathBuf {
    let name = file.to_string_lossy();
    let base = ["-wal", "-shm", "-journal"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let has_journal = written.iter().any(|other| other.to_string_lossy().starts_with(&format!("{base}-")));
    match file.parent() {
        Some(parent) if has_journal && !folder.starts_with(parent) => parent.to_path_buf(),
        _ => file.to_path_buf(),
    }
}

/// A text in the quotes of JSON, which are those of YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use foreshadow_engine::config;

    use super::*;

    fn found() -> Found {
        Found {
            command: ["python3", "My App.py", "--bind", "0.0.0.0:8000", "-n", "80001"]
                .map(str::to_owned)
                .to_vec(),
            workdir: PathBuf::from("/srv/my app"),
            port: Some(8000),
            other_ports: vec![9000],
            environment_lacked: vec!["DATABASE_URL".into()],
            written: ["/srv/data/app.db", "/srv/data/app.db-wal", "/srv/a.log"].map(PathBuf::from).to_vec(),
            used: Some(Used { cores: 0.21, memory_bytes: 50 << 20 }),
            ..Found::default()
        }
    }

    fn parsed(found: &Found) -> config::Config {
        let text = render(found, SocketAddr::from(([127, 0, 0, 1], 8080)), Path::new("/srv/my app"));
        config::parse(&text, Path::new("/srv/my app")).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn the_file_is_valid_and_says_what_was_found() {
        let config = parsed(&found());
        assert_eq!(config.service.as_str(), "my-app");
        assert_eq!(config.template.command[3..], ["0.0.0.0:$PORT", "-n", "80001"]);
        assert_eq!(config.template.storage, ["/srv/data", "/srv/a.log"].map(PathBuf::from));
        assert_eq!(config.template.resources.cpu.unwrap().to_string(), "450m");
        assert!(config.template.env.is_empty());
    }

    #[test]
    fn a_bare_command_gives_a_valid_file_too() {
        let found = Found { command: vec!["serve".into()], workdir: "/".into(), ..Found::default() };
        assert_eq!(parsed(&found).service.as_str(), "serve");
        let odd = Found { command: vec!["./9\"'#: %".into()], ..found };
        assert_eq!(parsed(&odd).template.command, ["./9\"'#: %"]);
    }
}
