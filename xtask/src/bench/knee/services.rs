//! Services that nobody here wrote, and what is asked of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A service, and what its users ask and stand.
pub(super) struct Service {
    pub(super) name: &'static str,
    /// What a shell becomes it with; `@PYTHON@` is the folder of `gunicorn` and `datasette`.
    script: &'static str,
    ready: &'static str,
    pub(super) cpu: &'static str,
    pub(super) objective_ms: f64,
    pub(super) targets: &'static [&'static str],
}

pub(super) const SERVICES: [Service; 3] = [
    Service {
        name: "httpbin",
        script: "exec @PYTHON@/gunicorn --threads 4 --keep-alive 30 -b 127.0.0.1:$PORT httpbin:app",
        ready: "/status/200",
        cpu: "400m",
        objective_ms: 250.0,
        targets: &["/get", "/get?a=1", "/headers", "/uuid", "/html"],
    },
    Service {
        name: "datasette",
        script: "exec @PYTHON@/datasette serve shop.db -p $PORT",
        ready: "/-/versions.json",
        cpu: "500m",
        objective_ms: 400.0,
        targets: &[
            "/shop/items/17.json?_shape=array",
            "/shop/items/4711.json?_shape=array",
            "/shop.json?sql=select+sum(price)+from+items+where+bucket=7&_shape=array",
            "/-/versions.json",
        ],
    },
    Service {
        name: "nginx",
        script: "mkdir -p hosts/$FORESHADOW_INSTANCE/site && cp *.txt hosts/$FORESHADOW_INSTANCE/site && cd hosts/$FORESHADOW_INSTANCE \
                 && sed s/LISTEN/$PORT/ ../../nginx.conf > nginx.conf && exec nginx -p . -c nginx.conf",
        ready: "/healthz",
        cpu: "300m",
        objective_ms: 250.0,
        targets: &["/0.txt", "/1.txt", "/2.txt", "/healthz"],
    },
];

const SHOP: &str = "\
import random, sqlite3
random.seed(1)
db = sqlite3.connect('shop.db')
db.execute('create table items (id integer primary key, bucket integer, price integer, note text)')
db.executemany('insert into items values (?, ?, ?, ?)', ((n, n % 300, n % 1000, f'{random.getrandbits(400):x}') for n in range(20000)))
db.execute('create index by_bucket on items (bucket)')
db.commit()
";

const NGINX: &str = "\
daemon off; worker_processes 1; error_log stderr; pid nginx.pid; events { worker_connections 1024; }
http {
  access_log off; keepalive_requests 1000000; types { text/plain txt; } gzip on; gzip_comp_level 6; gzip_types text/plain;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server { listen 127.0.0.1:LISTEN backlog=4096; root site; location = /healthz { return 200; } }
}
";

impl Service {
    /// Writes the files it needs.
    pub(super) fn prepare(&self, folder: &Path) -> anyhow::Result<()> {
        if self.name == "datasette" {
            let mut make = Command::new(python_folder()?.join("python"));
            let status = make.args(["-c", SHOP]).current_dir(folder).status()?;
            ensure!(status.success(), "no database for Datasette");
        }
        if self.name == "nginx" {
            std::fs::write(folder.join("nginx.conf"), NGINX)?;
            for page in 0..3 {
                let mut text = String::new();
                for line in 0..1000 {
                    writeln!(text, "line {line} of page {page}: {}", line * 7919 % 1013)?;
                }
                std::fs::write(folder.join(format!("{page}.txt")), text)?;
            }
        }
        Ok(())
    }

    pub(super) fn configuration(&self) -> anyhow::Result<String> {
        let python = if self.script.contains("@PYTHON@") { python_folder()? } else { PathBuf::new() };
        let script = self.script.replace("@PYTHON@", &python.display().to_string());
        Ok(format!(
            "service: knee-{}\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
             command: [sh, -c, {script:?}]\n    lives: 1\n    ready: {{ http: {} }}\n    resources: {{ cpu: {}, memory: 256Mi }}\n\
             mirror: {{ rate: {{ min: 50%, max: 50% }} }}\nprobe: {{ enabled: false }}\nknee: {{ objective: {}ms, every: 7d }}\n",
            self.name, self.ready, self.cpu, self.objective_ms
        ))
    }
}

/// Where `FORESHADOW_GUNICORN` says that a Python has gunicorn with httpbin, and Datasette.
fn python_folder() -> anyhow::Result<PathBuf> {
    let gunicorn = std::env::var_os("FORESHADOW_GUNICORN")
        .context("set FORESHADOW_GUNICORN to the gunicorn of a Python with httpbin and Datasette")?;
    Ok(PathBuf::from(gunicorn).parent().map(Path::to_owned).unwrap_or_default())
}
