//! Nothing with side effects reaches a shadow: Django's administration site, with logins, sessions and writes.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::controller::{Controller, has_cgroups, pair, turn};
use crate::services::{django, is_available};

/// Times each member looks around and adds something.
const ROUNDS: usize = 20;

/// Half of them are sampled, each for good: that none is happens once in four thousand runs.
const MEMBERS: usize = 12;

/// A page that members look at.
const PAGE: &str = "/admin/auth/user/";

/// How late copies may come.
const LATE: Duration = Duration::from_secs(20);

#[test]
fn nothing_with_side_effects_reaches_the_shadow_of_django_and_diverging_routes_are_named() {
    let _turn = turn();
    if !has_cgroups() || !is_available(django::SERVICE) {
        return;
    }
    let text = django::SERVICE.configuration("act", "none").replace(
        "session: { header: x-session }",
        "session: { cookie: sessionid }\n  rate: { min: 50%, max: 50% }",
    );
    let mut controller = Controller::start_prepared(&text, django::SERVICE.prepare);
    let status = controller.wait_ready();
    let listen = status["listen"].as_str().unwrap().parse().unwrap();
    let mut members: Vec<_> = (0..MEMBERS).map(|_| django::Member::log_in(listen)).collect();
    for round in 0..ROUNDS {
        for (number, member) in members.iter_mut().enumerate() {
            assert_eq!(member.get(PAGE), 200);
            assert_eq!(member.add_group(&format!("group-{round}-{number}")), 302);
        }
    }
    let folder = controller.folder.clone();
    assert_eq!(django::rows(&folder, "django_session"), MEMBERS as u64, "logins of users, and no others");
    assert_eq!(
        django::rows(&folder, "auth_group"),
        (MEMBERS * ROUNDS) as u64,
        "writes of users, and no others"
    );
    let began = Instant::now();
    while !asked_of_shadows(&folder).iter().any(|(method, path)| method == "GET" && path == PAGE) {
        assert!(began.elapsed() < LATE, "the shadows are asked: {:?}", asked_of_shadows(&folder));
        sleep(Duration::from_millis(400));
    }
    // A copy carries a token in place of the session: the shadow asks it to log in, live does not.
    controller.wait("diverging routes", LATE, |status| {
        ["live-1", "live-2"].iter().any(|live| {
            let routes = pair(status, live)["divergingRoutes"].as_object();
            routes.is_some_and(|routes| routes.keys().any(|route| route.contains(PAGE.trim_end_matches('/'))))
        })
    });
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
    // After the end, so that no copy is too late to be looked at.
    let methods: BTreeSet<String> = asked_of_shadows(&folder).into_iter().map(|(method, _)| method).collect();
    let harmless = BTreeSet::from(["GET", "HEAD", "OPTIONS"].map(str::to_owned));
    assert!(!methods.is_empty() && methods.is_subset(&harmless), "{methods:?}");
}

/// Method and path of everything that the shadows were asked so far.
fn asked_of_shadows(folder: &Path) -> Vec<(String, String)> {
    let logs = ["shadow-1", "shadow-2"]
        .map(|shadow| std::fs::read_to_string(folder.join(format!("state/logs/{shadow}.log"))).unwrap());
    logs.iter().flat_map(|log| log.lines()).filter_map(asked).collect()
}

/// Method and path in a line of gunicorn's access log: `... "GET /path HTTP/1.1" ...`.
fn asked(line: &str) -> Option<(String, String)> {
    let (_, request) = line.split_once('"')?;
    let (method, rest) = request.split_once(' ')?;
    let (path, _) = rest.split_once(" HTTP/1.")?;
    Some((method.to_owned(), path.to_owned()))
}
