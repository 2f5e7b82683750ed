//! Django's own administration site: logins, sessions, CSRF, writes into SQLite, under gunicorn.

use std::net::SocketAddr;
use std::path::Path;

use super::{Service, run_python};
use crate::http::{Connection, Request};

/// The only user.
pub(crate) const USER: &str = "ada";
pub(crate) const PASSWORD: &str = "byron-1815";

const SETTINGS: &str = "
DEBUG = False
ALLOWED_HOSTS = ['*']
DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'data' / 'db.sqlite3',
                         'OPTIONS': {'timeout': 20, 'init_command': 'PRAGMA journal_mode=WAL;'}}}
";

pub(crate) const SERVICE: &Service = &Service {
    name: "django",
    script: "exec @PYTHON@/gunicorn --threads 4 --keep-alive 30 --access-logfile - -b 127.0.0.1:@PORT@ shop.wsgi",
    ready: "/admin/login/",
    cpu: ["500m", "750m"],
    memory: ["256Mi", "384Mi"],
    scarce_cpu: "200m",
    storage: &["data"],
    prepare,
    requests: || vec![Request::get("/admin/login/"), Request::get("/admin/login/?next=/admin/")],
    rate: 30,
    faults: &["cpu", "network", "latency", "errors", "overload"],
};

fn prepare(folder: &Path) {
    run_python(folder, &["-m", "django", "startproject", "shop", "."], &[]);
    let settings = folder.join("shop/settings.py");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text + SETTINGS).unwrap();
    std::fs::create_dir_all(folder.join("data")).unwrap();
    run_python(folder, &["manage.py", "migrate", "--verbosity", "0"], &[]);
    run_python(
        folder,
        &["manage.py", "createsuperuser", "--noinput", "--username", USER, "--email", "ada@example.org"],
        &[("DJANGO_SUPERUSER_PASSWORD", PASSWORD)],
    );
}

/// How many rows a table of live's database has.
pub(crate) fn rows(folder: &Path, table: &str) -> u64 {
    let count = format!(
        "import sqlite3; print(sqlite3.connect('data/db.sqlite3').execute('select count(*) from {table}').fetchone()[0])"
    );
    run_python(folder, &["-c", &count], &[]).trim().parse().unwrap()
}

/// Somebody who is logged in.
pub(crate) struct Member {
    connection: Connection,
    cookies: String,
    token: String,
}

impl Member {
    /// Logs in, as a browser would: with the form's own token.
    pub(crate) fn log_in(to: SocketAddr) -> Self {
        let mut connection = Connection::new(to);
        let form = connection.ask(&Request::get("/admin/login/")).unwrap();
        let token = form.cookie("csrftoken").unwrap();
        let login = Request::post(
            "/admin/login/?next=/admin/",
            format!("csrfmiddlewaretoken={token}&username={USER}&password={PASSWORD}"),
        );
        let answer = connection.ask(&login.header("cookie", format!("csrftoken={token}"))).unwrap();
        assert_eq!(answer.status, 302, "{}", answer.text());
        let (session, token) = (answer.cookie("sessionid").unwrap(), answer.cookie("csrftoken").unwrap());
        Self { connection, cookies: format!("csrftoken={token}; sessionid={session}"), token }
    }

    /// Looks at a page.
    pub(crate) fn get(&mut self, path: &str) -> u16 {
        let request = Request::get(path).header("cookie", self.cookies.clone());
        self.connection.ask(&request).unwrap().status
    }

    /// Makes a group of users: a row in the database.
    pub(crate) fn add_group(&mut self, name: &str) -> u16 {
        let form = format!("csrfmiddlewaretoken={}&name={name}", self.token);
        let request = Request::post("/admin/auth/group/add/", form).header("cookie", self.cookies.clone());
        self.connection.ask(&request).unwrap().status
    }
}
