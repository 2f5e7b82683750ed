//! nginx with static files: pages it compresses, files it sends from the page cache, files it reads past it. Each
//! instance has its own copy of the site, as every host has its own disk.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::Service;
use crate::http::Request;

/// Files of 256 KiB that cannot be compressed.
const FILES: usize = 128;

/// Pages that are compressed anew for every user.
const PAGES: usize = 8;

const CONFIG: &str = "\
daemon off;
worker_processes 1;
error_log stderr;
pid nginx.pid;
events { worker_connections 256; }
http {
  access_log off;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  types { text/plain txt; }
  gzip on;
  gzip_comp_level 6;
  gzip_types text/plain;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server {
    listen 127.0.0.1:LISTEN;
    root site;
    location = /healthz { return 200; }
    location /direct/ { alias site/; directio 4k; }
  }
}
";

pub(crate) const SERVICE: &Service = &Service {
    name: "nginx",
    script: "mkdir -p hosts/$FORESHADOW_INSTANCE && cp -rn site hosts/$FORESHADOW_INSTANCE/ \
             && cp nginx.conf hosts/$FORESHADOW_INSTANCE/ && cd hosts/$FORESHADOW_INSTANCE && sync -f . && sed -i s/LISTEN/@PORT@/ nginx.conf \
             && exec nginx -p . -c nginx.conf",
    ready: "/healthz",
    cpu: ["300m", "450m"],
    memory: ["128Mi", "192Mi"],
    scarce_cpu: "300m",
    storage: &["hosts"],
    prepare,
    requests,
    rate: 60,
    faults: &["cpu", "memory", "storage", "network", "latency", "errors", "overload"],
};

fn prepare(folder: &Path) {
    let site = folder.join("site");
    fs::create_dir_all(&site).unwrap();
    fs::create_dir_all(folder.join("hosts")).unwrap();
    fs::write(folder.join("nginx.conf"), CONFIG).unwrap();
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for number in 0..FILES {
        let bytes: Vec<u8> = (0..32 * 1024).flat_map(|_| next().to_le_bytes()).collect();
        fs::write(site.join(format!("{number}.bin")), bytes).unwrap();
    }
    for number in 0..PAGES {
        let mut text = String::new();
        while text.len() < 200_000 {
            writeln!(text, "line {} of page {number}: {}", text.len(), next() % 1000).unwrap();
        }
        fs::write(site.join(format!("{number}.txt")), text).unwrap();
    }
}

/// A third each: compressed, from the page cache, from the disk.
fn requests() -> Vec<Request> {
    let numbers = 0..FILES;
    numbers
        .flat_map(|number| {
            [
                Request::get(format!("/{}.txt", number % PAGES)).header("accept-encoding", "gzip"),
                Request::get(format!("/{}.bin", number * 37 % FILES)),
                Request::get(format!("/direct/{}.bin", number * 59 % FILES)),
            ]
        })
        .collect()
}
