//! Nothing with side effects reaches a shadow: Django's administration site, with logins, sessions and writes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::controller::{Controller, has_cgroups, pair, turn};
use crate::services::{django, is_available};

/// Times each member looks around and adds something.
const ROUNDS: usize = 40;

const MEMBERS: usize = 6;

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
            assert_eq!(member.get("/admin/auth/user/"), 200);
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
    let mut copies = 0;
    for shadow in ["shadow-1", "shadow-2"] {
        let log = std::fs::read_to_string(folder.join(format!("state/logs/{shadow}.log"))).unwrap();
        let methods: BTreeSet<&str> = log.lines().filter_map(method).collect();
        assert!(methods.is_subset(&BTreeSet::from(["GET", "HEAD", "OPTIONS"])), "{methods:?}");
        copies += log.lines().filter(|line| line.contains("GET /admin/auth/user/")).count();
    }
    assert!(0 < copies, "the shadows were asked");
    // A copy carries a token in place of the session: the shadow asks it to log in, live does not.
    controller.wait("diverging routes", Duration::from_secs(20), |status| {
        ["live-1", "live-2"].iter().any(|live| {
            let routes = pair(status, live)["divergingRoutes"].as_object();
            routes.is_some_and(|routes| routes.keys().any(|route| route.contains("/admin/auth/user")))
        })
    });
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}

/// The method in a line of gunicorn's access log: `... "GET /path HTTP/1.1" ...`.
fn method(line: &str) -> Option<&str> {
    let (_, request) = line.split_once('"')?;
    let (method, rest) = request.split_once(' ')?;
    rest.contains(" HTTP/1.").then_some(method)
}
