//! The file of a mirror that stands alone.

use std::path::Path;

use foreshadow_model::Weight;

use super::*;

#[test]
fn the_file_of_a_mirror_alone_is_read_and_names_every_key_of_its_own() {
    const EXAMPLE: &str = include_str!("../../examples/mirror.yaml");
    const CAPTURE: &str = include_str!("../../examples/capture.yaml");
    const LOG: &str = include_str!("../../examples/log.yaml");
    let source = |text| parse_alone(text, Path::new("/srv/shop"), is_known).unwrap().source;
    assert_eq!(
        source(CAPTURE),
        Source::Capture(CaptureRules {
            interface: Some("eth0".into()),
            namespace: Some("/run/netns/shop".into())
        })
    );
    assert_eq!(
        source(LOG),
        Source::Log { file: "/var/log/nginx/access.log".into(), format: "combined".into() }
    );
    let config = parse_alone(EXAMPLE, Path::new("/srv/shop"), is_known).unwrap();
    let [first, second] = &config.lives[..] else { panic!("two lives") };
    assert_eq!((first.shadow.as_deref(), first.rate.get()), (Some("http://127.0.0.1:9101"), 0.25));
    assert_eq!((second.rate.get(), second.http2, second.weight), (0.1, true, Weight::FULL));
    assert_eq!(second.authorities.as_deref(), Some(Path::new("/srv/shop/ca.pem")));
    assert_eq!(config.mirror.front.tls.unwrap().key, Path::new("/srv/shop/key.pem"));
    let (mut both, mut all) = (Vec::new(), Vec::new());
    keys(schema().as_value(), &mut both);
    keys(alone_schema().as_value(), &mut all);
    for key in all.iter().filter(|key| !both.contains(key)) {
        let named = |example: &str| example.contains(&format!("{key}:"));
        assert!(named(EXAMPLE) || named(CAPTURE) || named(LOG), "{key}");
    }
}

/// Stands for whoever reads logs.
fn is_known(format: &str) -> Result<(), String> {
    if format == "$odd" { Err("no such thing".into()) } else { Ok(()) }
}

#[test]
fn what_a_mirror_alone_cannot_do_is_refused() {
    for (text, message) in [
        (
            "source: capture\nlisten: 127.0.0.1:1\nlives: [{ url: http://a:1 }]",
            "expected no `listen` where users connect to the lives, not to the mirror",
        ),
        ("capture: {}\nlives: [{ url: http://a:1 }]", "expected `source: capture` beside `capture`"),
        ("source: log\nlives: [{ url: http://a:1 }]", "expected a log to read with `source: log`, got none"),
        (
            "source: log\nlog: { file: a }\nlives: [{ url: http://a:1 }, { url: http://b:1 }]",
            "expected one live, whose log it is, got 2",
        ),
        (
            "source: capture\nlives: [{ url: https://a:1 }]",
            "expected lives without TLS to capture, got `https://a:1`",
        ),
        (
            "source: log\nlog: { file: a, format: $odd }\nlives: [{ url: http://a:1 }]",
            "expected a format that can be read, got `$odd`: no such thing",
        ),
        (
            "lives: [{ url: http://a:1 }]\nmirror: { budget: { utilisation: 50% } }",
            "expected no `utilisation` without a controller to measure it",
        ),
        (
            "lives: [{ url: http://a:1 }]\nmirror: { budget: { timePerSecond: 1ms } }",
            "expected `timePerSecond` of `10ms` or more, got `1ms`",
        ),
        (
            "source: capture\nlives: [{ url: http://a:1 }]\nmirror: { session: { cookie: sid } }",
            "expected `session` by cookie or header only with `source: proxy`",
        ),
        (
            "source: capture\nlives: [{ url: http://a:1 }]\nmirror: { front: { proxyProtocol: true } }",
            "expected `mirror.front` only with `source: proxy`",
        ),
        (
            "source: capture\ncapture: { interface: a b }\nlives: [{ url: http://a:1 }]",
            "expected an interface such as `eth0`, got `a b`",
        ),
        ("lives: []", "expected a live, got none"),
        (
            "lives: [{ url: http://a:1/b }]",
            "expected an address without a path, such as `http://127.0.0.1:9001`",
        ),
        ("lives: [{ url: http://a:1, weight: 101 }]", "expected `weight` between 0 and 100, got 101"),
        (
            "lives: [{ url: http://a:1 }]\nmirror: { rate: { max: 20% } }",
            "expected no `mirror.rate` without a controller to move it, got `20%`",
        ),
        (
            "lives: [{ url: http://a:1 }]\nmetrics: 0.0.0.0:80",
            "expected a loopback address, got `0.0.0.0:80`",
        ),
        (
            "lives: [{ url: http://a:1 }]\nmirror: { front: { timeouts: { idle: 0s } } }",
            "expected `idle` between `1ms` and `1d`, got `0s`",
        ),
    ] {
        let error = parse_alone(text, Path::new("/srv/shop"), is_known).unwrap_err();
        assert_eq!(error.message(), message);
        assert!(1 <= error.line(), "{message}");
    }
}
