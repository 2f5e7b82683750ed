use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn read(format: &str, line: &str) -> Result<Logged, Skipped> {
    format.parse::<Format>().unwrap_or_else(|error| panic!("{error}")).read(line.as_bytes())
}

const COMBINED_LINE: &str = r#"198.18.4.7 - frank [17/May/2015:10:05:03 +0000] "GET /a?b=1 HTTP/1.1" 200 2326 "http://shop.example/" "Mozilla/5.0 \"x\"""#;

#[test]
fn a_combined_line_says_everything() {
    for format in ["auto", "combined"] {
        let logged = read(format, COMBINED_LINE).unwrap();
        assert_eq!(logged.written, "2015-05-17T10:05:03Z".parse().unwrap());
        assert_eq!((logged.method.as_str(), logged.target.as_str()), ("GET", "/a?b=1"));
        assert_eq!(logged.status.unwrap(), 200);
        assert_eq!(logged.referer.unwrap(), "http://shop.example/");
        assert_eq!(logged.agent.unwrap(), "Mozilla/5.0 \"x\"");
    }
}

#[test]
fn other_shapes_are_recognised() {
    let common = r#"198.18.4.7 - - [17/May/2015:10:05:03 +0000] "HEAD / HTTP/1.0" 304 -"#;
    assert_eq!(read("auto", common).unwrap().method, "HEAD");
    let more = format!("{COMBINED_LINE} 0.012 \"203.0.113.9\"");
    assert_eq!(read("auto", &more).unwrap().target, "/a?b=1");
    let vhost = format!("shop.example:443 {COMBINED_LINE}");
    assert_eq!(read("auto", &vhost).unwrap().host.unwrap(), "shop.example");
    let envoy = r#"[2016-04-15T20:17:00.310Z] "GET /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations" "tcp://10.0.2.1:80""#;
    let logged = read("auto", envoy).unwrap();
    assert_eq!(
        (logged.target.as_str(), logged.latency),
        ("/api/v1/locations", Some(Duration::from_millis(226)))
    );
    assert_eq!(logged.host.unwrap(), "locations");
    let istio = r#"[2020-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 4 4 "-" "curl/7.73.0" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "127.0.0.1:80""#;
    let logged = read("auto", istio).unwrap();
    assert_eq!((logged.target.as_str(), logged.latency), ("/status/418", Some(Duration::from_millis(4))));
    assert_eq!(logged.host.unwrap(), "httpbin:8000");
}

#[test]
fn what_stands_in_front_of_a_line_is_no_host() {
    for prefix in ["2026-11-01T00:00:00.1Z ", "Nov 29 05:18:37 web1 nginx: "] {
        let logged = read("auto", &format!("{prefix}{COMBINED_LINE}"));
        assert!(logged.as_ref().map_or(true, |logged| logged.host.is_none()), "{logged:?}");
    }
}

#[test]
fn caddy_nginx_and_anybodys_json_is_read() {
    let caddy = r#"{"level":"info","ts":1646861401.5241024,"msg":"handled request","request":{"remote_ip":"127.0.0.1","method":"GET","host":"localhost","uri":"/a?b=1","headers":{"User-Agent":["curl/7.82.0"]}},"duration":0.000929675,"status":200}"#;
    let logged = read("auto", caddy).unwrap();
    assert_eq!((logged.target.as_str(), logged.agent.unwrap().to_str().unwrap()), ("/a?b=1", "curl/7.82.0"));
    assert_eq!(logged.latency.unwrap().as_micros(), 929);
    let nginx = r#"{"time_iso8601":"2026-11-01T00:00:00+00:00","request":"GET /x HTTP/1.1","status":"200","request_time":"0.250"}"#;
    let logged = read("json", nginx).unwrap();
    assert_eq!((logged.target.as_str(), logged.latency), ("/x", Some(Duration::from_millis(250))));
    let envoy = r#"{"start_time":"2026-11-01T00:00:00Z","method":"GET","path":"/z","response_code":200,"duration":226}"#;
    assert_eq!(read("json", envoy).unwrap().latency, Some(Duration::from_millis(226)));
    let own = r#"{"when":"2026-11-01T00:00:00Z","verb":"GET","url":"/y","took":12,"a.b":"shop"}"#;
    let logged = read("json:time=when,method=verb,target=url,latency=took:ms,host=a.b", own).unwrap();
    assert_eq!((logged.target.as_str(), logged.latency), ("/y", Some(Duration::from_millis(12))));
    assert_eq!(logged.host.unwrap(), "shop");
}

#[test]
fn what_a_server_was_told_is_understood() {
    let nginx = "$remote_addr [$time_iso8601] ${host} \"$request_method $request_uri $server_protocol\" $status $request_time";
    let logged =
        read(nginx, r#"::1 [2026-11-01T00:00:00+01:00] shop.example "GET /a?b=1 HTTP/2.0" 200 0.005"#)
            .unwrap();
    assert_eq!(
        (logged.host.unwrap(), logged.latency),
        ("shop.example".parse().unwrap(), Some(Duration::from_millis(5)))
    );
    let apache = r#"%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %{ms}T %D"#;
    let logged = read(apache, &format!("shop.example:80 {COMBINED_LINE} 3 3100")).unwrap();
    assert_eq!(
        (logged.host.unwrap(), logged.latency),
        ("shop.example".parse().unwrap(), Some(Duration::from_millis(3)))
    );
    assert_eq!(read("%{msec}t %m %U%q %s", "1431849903000 GET /a?b=1 200").unwrap().target, "/a?b=1");
    assert_eq!(read("%{msec}t %m %U %q %s", "1431849903000 GET /a ?b=1 200").unwrap().target, "/a?b=1");
    assert_eq!("%t %m%U".parse::<Format>(), Err(FormatError::Adjacent(2)));
    let apache = "%{%d/%b/%Y:%T %z}t \"%m %U%q %H\" %s";
    let logged = read(apache, "17/May/2015:10:05:03 +0000 \"GET /a b HTTP/1.1\" 200");
    assert_eq!(logged, Err(Skipped::Unreadable), "half a path is none");
    let envoy = "%START_TIME(%s.%3f)% %REQ(:METHOD)% %REQ(:PATH):256% %PROTOCOL% 100%% %DURATION%";
    let logged = read(envoy, "1431849903.000 GET /a HTTP/1.1 100% 7").unwrap();
    assert_eq!(logged.latency, Some(Duration::from_millis(7)));
}

#[test]
fn a_format_that_says_too_little_is_refused_with_what_is_missing() {
    let refused = |format: &str| format.parse::<Format>().unwrap_err().to_string();
    assert_eq!(refused("$request $status"), "a format must say when a request came");
    assert_eq!(refused("$time_local $request_uri"), "a format must say the method of a request");
    assert_eq!(refused("%t %m"), "a format must say the path of a request");
    assert_eq!(refused("json:time=ts,method=m"), "a format must say the path of a request");
    assert!(refused("json:tiem=ts").ends_with("got `tiem=ts`"));
    assert!(refused("json:latency=took:years").ends_with("got `latency=took:years`"));
    assert!(refused("apache").ends_with("got `apache`"));
}

#[test]
fn what_is_no_safe_request_is_counted_and_not_sent() {
    let line = |request: &str| format!("::1 - - [17/May/2015:10:05:03 +0000] \"{request}\" 400 0");
    let skipped = |line: &str| read("auto", line).unwrap_err();
    assert_eq!(skipped(&line("POST /pay HTTP/1.1")), Skipped::Unsafe);
    assert_eq!(skipped(&line("-")), Skipped::NoRequest);
    assert_eq!(skipped(&line("")), Skipped::NoRequest);
    assert_eq!(skipped(&line(r"\x16\x03\x01\x02")), Skipped::NoRequest);
    assert_eq!(skipped(&line(r"GET /a\x0d\x0aX-Evil:1 HTTP/1.1")), Skipped::BadTarget);
    assert_eq!(skipped("something else"), Skipped::Unreadable);
    assert_eq!(skipped(&"x".repeat(LINE_BYTES_MAX + 1)), Skipped::TooLong);
    assert_eq!(Format::default().read(&[0xff, 0xfe, b'\n']), Err(Skipped::Unreadable));
}

/// The real log, all of it: nothing is unreadable, and what is skipped is skipped for what it is.
#[test]
fn a_real_log_is_read_to_its_last_line() {
    let folder = std::env::var("FORESHADOW_DATA").unwrap_or_else(|_| "../../shared/data".into());
    let path = std::path::Path::new(&folder).join("accesslog/semicomplete_combined.log");
    let Ok(text) = std::fs::read(&path) else {
        eprintln!("SKIPPED: needs {} (FORESHADOW_DATA)", path.display());
        return;
    };
    let format = Format::default();
    let mut skipped = std::collections::BTreeMap::<Skipped, u32>::new();
    let mut read = 0;
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match format.read(line) {
            Ok(_) => read += 1,
            Err(why) => *skipped.entry(why).or_default() += 1,
        }
    }
    assert_eq!((read, skipped), (9995, [(Skipped::Unsafe, 5)].into()));
}

proptest! {
    #[test]
    fn no_line_does_more_than_be_refused(line in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(Format::default().read(&line));
    }

    #[test]
    fn nor_does_a_line_that_begins_well(tail in ".{0,200}", cut in 0..170_usize) {
        let begin = COMBINED_LINE.get(..cut).unwrap_or(COMBINED_LINE);
        drop(Format::default().read(format!("{begin}{tail}").as_bytes()));
    }

    #[test]
    fn no_format_does_more_than_be_refused(format in "[$%{}()a-zA-Z:>\\\\\"^ ]{0,60}", line in ".{0,100}") {
        if let Ok(format) = format.parse::<Format>() {
            drop(format.read(line.as_bytes()));
        }
    }
}
