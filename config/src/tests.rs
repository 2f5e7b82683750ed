//! Whole files: what is read, what is refused, and with which words.

use std::path::Path;
use std::time::Duration;

use foreshadow_model::{
    ActionType, MilliCpu, MirrorPolicy, Mode, OnExit, PerSecond, ProbePolicy, Ratio, Readiness, SessionKey,
};
use proptest::prelude::*;

use super::*;

mod alone;

const MINIMAL: &str = "service: shop\nplatform:\n  type: local\n  local:\n    command: [\"./server\"]\n";
const REFERENCE: &str = include_str!("../examples/reference.yaml");

fn accepted(text: &str) -> Config {
    parse(text, Path::new("/srv/shop")).unwrap_or_else(|error| panic!("error: {error}"))
}

fn refused(text: &str) -> ConfigError {
    parse(text, Path::new("/srv/shop")).expect_err("the file is wrong")
}

/// `rest` follows the minimal file, so its first line is line 6, inside of `local` if it is indented.
fn check(rest: &str, line: u64, column: u64, message: &str) {
    let error = refused(&format!("{MINIMAL}{rest}"));
    assert_eq!((error.line(), error.column(), error.message()), (line, column, message), "{error}");
}

#[test]
fn a_minimal_file_has_the_defaults_of_the_model() {
    let config = accepted(MINIMAL);
    assert_eq!(config.service.as_str(), "shop");
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!((config.lives, config.nodes, config.warnings), (1, None, Vec::new()));
    assert_eq!(config.state, Path::new("/srv/shop/.foreshadow"));
    assert_eq!(config.logs, LogPolicy { max: Bytes::mebi(16), keep: 3 });
    assert_eq!(config.store.significant_digits, Some(4));
    assert_eq!(config.template.command, ["./server"]);
    assert_eq!(config.template.workdir, Path::new("/srv/shop"));
    assert_eq!(config.template.ready, Readiness::Tcp);
    let policy = config.policy;
    assert_eq!((policy.mode, policy.on_exit), (Mode::Observe, OnExit::Stop));
    assert_eq!(policy.tick, Duration::from_secs(5));
    assert_eq!(policy.mirror, MirrorPolicy::default());
    assert_eq!(policy.probe, ProbePolicy::default());
    assert_eq!(policy.compare, foreshadow_model::ComparePolicy::default());
    assert_eq!(policy.action.kind, ActionType::Auto);
    assert_eq!(policy.action.vertical.cpu_sizes, []);
    assert_eq!((policy.action.horizontal.lives_min, policy.action.horizontal.lives_max), (1, 2));
    assert_eq!(policy.action.guards.actions_per_hour, 12);
    assert_eq!(policy.knee, foreshadow_model::KneePolicy::default());
    assert!(config.maintenance.is_empty() && policy.action.guards.budget.is_none());
}

#[test]
fn the_reference_file_is_read_without_a_warning() {
    let config = accepted(REFERENCE);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.policy.mode, Mode::Act);
    assert_eq!(config.policy.mirror.session, SessionKey::Cookie("sid".to_owned()));
    assert_eq!(config.policy.compare.effect, Ratio::new(0.15).unwrap());
    assert_eq!(config.policy.action.horizontal.calm_for, Duration::from_secs(600));
    assert_eq!(config.template.storage, [Path::new("/srv/shop/data")]);
    assert_eq!(config.template.shadow_env["SMTP_HOST"], "");
    assert_eq!(config.template.egress_allow[1].host, "db.internal");
    let spared: Vec<String> = config.policy.knee.spared.iter().map(ToString::to_string).collect();
    assert_eq!(spared, ["127.0.0.1:5432", "db.internal:5432"], "the third is said to be safe");
    let budget = config.policy.action.guards.budget.unwrap();
    assert_eq!((budget.lives(), budget.per_hour), (11, 2.0));
    assert_eq!((config.maintenance.len(), config.maintenance[0].days.len()), (1, 2));
    assert_eq!(config.nodes.unwrap()[1].cpus, [1, 2, 3, 5]);
}

#[test]
fn a_history_is_kept_for_days_at_least_and_hours_longest() {
    let kept = |rest: &str| accepted(&format!("{MINIMAL}store: {rest}\n")).store;
    let day = Duration::from_secs(86_400);
    let usual = kept("{}");
    assert_eq!((usual.samples, usual.minutes, usual.hours), (day * 30, day * 14, day * 730));
    assert_eq!(kept("{ significantDigits: full }").significant_digits, None);
    assert_eq!(kept("{ significantDigits: 6 }").significant_digits, Some(6));
    assert_eq!(kept("{ retention: { samples: 1d, minutes: 90d } }").minutes, day * 90);
    check(
        "store: { significantDigits: 0 }\n",
        6,
        29,
        "expected a number of digits from `1` to `15`, or `full`, got `0`",
    );
    check(
        "store: { retention: { samples: 5h } }\n",
        6,
        32,
        "expected `samples` between `1d` and `36500d`, got `5h`",
    );
    let url = "http://user:hunter2@127.0.0.1/api/v1/write";
    let target =
        &kept(&format!("{{ remoteWrite: [{{ url: \"{url}\", bearerTokenFile: t }}] }}")).remote_write[0];
    assert_eq!((target.url.as_str(), target.batch), (url, 5000));
    assert_eq!(target.token_file.as_deref(), Some(Path::new("/srv/shop/t")));
    assert!(!format!("{target:?}").contains("hunter2"));
    let message = "expected `hours` to be kept at least as long as `samples`, got `20d` and `30d`";
    check("store: { retention: { hours: 20d } }\n", 6, 30, message);
}

/// Every key of a schema.
fn keys(schema: &serde_json::Value, out: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                out.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| keys(value, out));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, out)),
        _ => {}
    }
}

#[test]
fn the_reference_file_names_every_key() {
    let mut all = Vec::new();
    keys(schema().as_value(), &mut all);
    assert!(60 < all.len(), "{all:?}");
    for key in all {
        assert!(REFERENCE.contains(&format!("{key}:")), "{key}");
    }
}

#[test]
fn only_what_may_be_harmless_is_mirrored_beside_reading() {
    let routes = |route: &str| refused(&format!("{MINIMAL}mirror:\n  routes:\n    - {route}\n"));
    let error = routes("{ path: /a, mirror: true, methods: [DELETE] }");
    assert_eq!(error.message(), "expected one of `POST`, `PUT`, `REPORT`, `SEARCH`, got `DELETE`");
    let error = routes("{ path: /a, mirror: false, methods: [POST] }");
    assert_eq!(error.message(), "expected no `methods` beside `mirror: false`");
}

#[test]
fn a_rule_of_the_redaction_that_leaves_less_counts_more() {
    let text = "tokenise: { headers: [X-A], json: [a.b] }\nremove: { headers: [x-a] }\nterms: [Falcon]\n";
    let policy = parse_redact(text, Path::new("/srv")).unwrap();
    let first = &policy.rules[0];
    assert_eq!((first.name.as_str(), first.mode), ("x-a", foreshadow_model::RedactMode::Remove));
    assert_eq!((policy.rules.len(), policy.terms), (3, vec!["Falcon".to_owned()]));
    for (text, message) in [
        ("mask: { json: [a..b] }", "expected names with dots between such as `user.name`, got `a..b`"),
        ("mask: { query: ['a=b'] }", "expected the name of a query parameter, got `a=b`"),
        ("terms: ['']", "expected a word, got nothing"),
    ] {
        assert_eq!(parse_redact(text, Path::new("/srv")).unwrap_err().message(), message);
    }
}

#[test]
fn the_bar_of_a_message_is_held() {
    let error = refused(&format!("{MINIMAL}compare:\n  effect: 15\n")).in_file("foreshadow.yaml");
    assert_eq!(
        format!("error: {}", error.with_line()),
        "error: line 7 column 11: expected a percentage such as `15%`, got `15`\n \
         --> foreshadow.yaml:7:11\n\
         7 |   effect: 15\n  \
           |           ^ expected a percentage such as `15%`, got `15`"
    );
}

#[test]
fn what_may_go_into_a_log_has_nothing_of_the_line() {
    let error = refused(&format!("{MINIMAL}mode: acts # hunter2\n")).in_file("foreshadow.yaml");
    assert!(error.with_line().contains("hunter2"));
    assert_eq!(
        error.to_string(),
        "line 6 column 7: expected `observe` or `act`, got `acts`\n \
         --> foreshadow.yaml:6:7\n  \
           = help: did you mean `act`?"
    );
}

#[test]
fn a_near_miss_is_recognised() {
    let error = refused(&format!("{MINIMAL}tikc: 5s\n"));
    assert_eq!((error.message(), error.remedy()), ("unknown key `tikc`", Some("did you mean `tick`?")));
    let error = refused(&format!("{MINIMAL}mode: acts\n"));
    assert_eq!(error.message(), "expected `observe` or `act`, got `acts`");
    assert_eq!(error.remedy(), Some("did you mean `act`?"));
    assert!(error.to_string().ends_with("\n  = help: did you mean `act`?"), "{error}");
}

#[test]
fn text_that_is_no_such_file_is_refused() {
    for (text, message) in [
        ("", "expected more, got the end of the file"),
        ("a", "expected a block of keys, such as `key: value`"),
        ("service: shop\n", "missing key `platform`"),
        ("service: shop\nplatform: { type: local }\n", "platform of type `local` without a block `local`"),
        ("service: shop\nplatform: { type: docker }\n", "expected `local`, got `docker`"),
        ("service: shop\nplatform: { type: local, local: {} }\n", "missing key `command`"),
    ] {
        assert_eq!(refused(text).message(), message, "{text}");
    }
    check("---\nservice: shop\n", 7, 1, "expected one document, got a second one after `---`");
    check("tick: 5s\ntick: 6s\n", 7, 1, "duplicate key `tick`");
    check("tick: \"5s\n", 6, 7, "unclosed quote");
    check("tick: *x\n", 6, 7, "reference to unknown value");
}

#[test]
fn values_without_their_unit_are_refused_where_they_stand() {
    check("tick: 5\n", 6, 7, "expected a duration such as `30s`, `500ms` or `10m`, got `5`");
    check("mirror:\n  rate: { max: .nan }\n", 7, 16, "expected a percentage such as `15%`, got `.nan`");
    check("logs: { maxSize: 16 }\n", 6, 18, "expected a size such as `512Mi`, `64Ki` or `2Gi`, got `16`");
    let cpu = "expected processor time in thousandths of a core such as `250m` or `1500m`, got `1.5`";
    check("    resources: { cpu: 1.5 }\n", 6, 23, cpu);
    check("listen: [80]\n", 6, 9, "expected one value, got a list or a block of keys");
    check("logs: { keep: often }\n", 6, 15, "expected a whole number of zero or more, such as `3`");
}

#[test]
fn values_out_of_range_are_refused() {
    check("tick: 5m\n", 6, 7, "expected `tick` between `1s` and `1m`, got `5m`");
    check("    lives: 0\n", 6, 12, "expected `lives` of 1 or more, got 0");
    check("mirror:\n  rate: { max: 101% }\n", 7, 16, "expected `max` between `0%` and `100%`, got `101%`");
    check("compare: { effect: 0% }\n", 6, 20, "expected `effect` between `1%` and `500%`, got `0%`");
    check("    resources: { memory: 1Mi }\n", 6, 26, "expected `memory` of `4Mi` or more, got `1Mi`");
    check("state: \"\"\n", 6, 8, "expected a path, got an empty text");
}

#[test]
fn environment_and_command_are_text() {
    check("    env: { A: 5 }\n", 6, 15, "expected text, got the number `5`: put it in quotes");
    check("    env: { A: true }\n", 6, 15, "expected text, got the boolean `true`: put it in quotes");
    check("    env: { A: }\n", 6, 13, "expected text, got nothing: write `\"\"` for an empty text");
    let name = "expected the name of an environment variable without `=`, other than `PORT`, which foreshadow \
                sets itself, got `A=B`";
    check("    env: { \"A=B\": x }\n", 6, 12, name);
    assert_eq!(accepted(&format!("{MINIMAL}    env: {{ A: yes }}\n")).template.env["A"], "yes");
    let number = MINIMAL.replace("\"./server\"", "./server, 8080");
    assert_eq!(refused(&number).message(), "expected text, got the number `8080`: put it in quotes");
    let empty = MINIMAL.replace("\"./server\"", "");
    assert_eq!(refused(&empty).message(), "expected a program and its arguments, got no program");
}

#[test]
fn rates_queues_and_sessions_must_agree() {
    let message = "expected `min` not above `max`, got `60%` and `50%`";
    check("mirror:\n  rate: { min: 60% }\n", 7, 16, message);
    let message = "expected `queueSize` of at least one `copySize`, got `1Ki` and `64Ki`";
    check("mirror:\n  budget: { queueSize: 1Ki }\n", 7, 24, message);
    let message = "expected one of `cookie`, `header` and `clientAddress`, got more";
    check("mirror:\n  session: { cookie: a, header: b }\n", 7, 12, message);
    let routes = "mirror:\n  routes: [{ path: /a, mirror: true }, { path: /a, mirror: false }]\n";
    check(routes, 7, 48, "duplicate route `/a`");
    let header = accepted(&format!("{MINIMAL}mirror: {{ session: {{ header: X-Sid }} }}\n"));
    assert_eq!(header.policy.mirror.session, SessionKey::Header("x-sid".to_owned()));
}

#[test]
fn lives_stay_between_floor_and_ceiling() {
    let message = "expected `livesMin` ≤ `lives` ≤ `livesMax`, got 2, 2 and 1";
    check("    lives: 2\naction:\n  horizontal: { livesMax: 1 }\n", 8, 27, message);
    let message = "expected `livesMin` ≤ `lives` ≤ `livesMax`, got 3, 1 and 4";
    check("action:\n  horizontal: { livesMin: 3, livesMax: 4 }\n", 7, 27, message);
    let message = "expected `calm` below `busy`, got `30%` and `20%`";
    check("action:\n  horizontal: { busy: 20% }\n", 7, 23, message);
}

#[test]
fn sizes_ascend_from_the_one_to_start_from() {
    let cpu = "    resources: { cpu: 800m }\naction:\n  vertical: ";
    let message = "expected ascending sizes, got `900m` before `900m`";
    check(&format!("{cpu}{{ cpuSizes: [900m, 900m] }}\n"), 8, 25, message);
    let message = "`resources.cpu` is `800m`, above the largest of `cpuSizes`, `750m`";
    check(&format!("{cpu}{{ cpuSizes: [500m, 750m] }}\n"), 8, 25, message);
    check(&format!("{cpu}{{ cpuSizes: [] }}\n"), 8, 25, "expected at least one size, got none");
    let message = "type `vertical` without `resources.cpu` or `resources.memory` has no size to go to";
    check("action: { type: vertical }\n", 6, 17, message);
    let message = "`cpuSizes` without `resources.cpu` says nothing about the size to start from";
    check("action: { vertical: { cpuSizes: [1000m] } }\n", 6, 33, message);
    let sizes =
        accepted(&format!("{MINIMAL}    resources: {{ cpu: 500m }}\n")).policy.action.vertical.cpu_sizes;
    assert_eq!(sizes, [500, 750, 1000].map(MilliCpu::new));
    let sizes = accepted(&format!("{MINIMAL}    resources: {{ memory: 64Mi }}\n"));
    assert_eq!(sizes.policy.action.vertical.memory_sizes, [64, 96, 128].map(Bytes::mebi));
}

#[test]
fn the_api_is_for_this_machine_only() {
    check("api: { listen: \"0.0.0.0:9464\" }\n", 6, 16, "expected a loopback address, got `0.0.0.0:9464`");
    assert_eq!(accepted(MINIMAL).api, None);
}

#[test]
fn alarms_go_to_web_addresses() {
    let message = "expected an address such as `http://127.0.0.1:9093`, got `ftp://x`";
    check("alerts: { webhook: \"ftp://x\" }\n", 6, 20, message);
    let alerts =
        accepted(&format!("{MINIMAL}alerts: {{ alertmanager: \"http://127.0.0.1:9093/\" }}\n")).alerts;
    assert_eq!(alerts.alertmanager.as_deref(), Some("http://127.0.0.1:9093"));
    assert!(!format!("{alerts:?}").contains("9093"), "an address may hold a secret");
}

#[test]
fn a_shadow_is_shared_by_no_more_lives_than_written() {
    check("shadow: { ratio: 0% }\n", 6, 18, "expected `ratio` between `1%` and `100%`, got `0%`");
    let half = accepted(&format!("{MINIMAL}shadow: {{ ratio: 50% }}\n"));
    assert!((half.shadow_ratio.get() - 0.5).abs() < 1e-12);
}

#[test]
fn capacity_is_a_rate() {
    check("forecast: { capacity: 200 }\n", 6, 23, "expected a rate such as `200/s`, got `200`");
    let forecast = accepted(&format!("{MINIMAL}forecast: {{ capacity: 200/s }}\n")).policy.forecast;
    assert_eq!(forecast.capacity.map(PerSecond::get), Some(200.0));
}

#[test]
fn an_action_is_not_judged_by_the_window_it_was_made_in() {
    let message = "expected `verifyAfter` of two ticks or more (`10s`), got `9s`";
    check("action:\n  guards: { verifyAfter: 9s }\n", 7, 26, message);
}

#[test]
fn nodes_are_disjoint_and_one_alone_is_warned_of() {
    let both = "    nodes: [{ name: a, cpus: \"0-1\" }, { name: b, cpus: \"1\" }]\n";
    check(both, 6, 56, "processor 1 of node `b` belongs to node `a` already");
    let same = "    nodes: [{ name: a, cpus: \"0\" }, { name: a, cpus: \"1\" }]\n";
    check(same, 6, 45, "duplicate node `a`");
    check("    nodes: []\n", 6, 12, "expected at least one node, got none");
    let one = accepted(&format!("{MINIMAL}    nodes: [{{ name: a, cpus: 0 }}]\n"));
    assert!(one.warnings[0].starts_with("`platform.local.nodes` has one node"), "{:?}", one.warnings);
}

#[test]
fn storage_and_state_never_contain_each_other() {
    let message = "storage `/srv/shop` and state `/srv/shop/.foreshadow` lie within each other";
    check("    storage: [.]\n", 6, 15, message);
    let message = "storage `/srv/shop/data` and state `/srv/shop/data/../data/state` lie within each other";
    check("    storage: [data]\nstate: data/../data/state\n", 6, 15, message);
    let message = "storage `/srv/shop/.foreshadow/x` and state `/srv/shop/.foreshadow` lie within each other";
    check("    storage: [.foreshadow/x]\n", 6, 15, message);
    accepted(&format!("{MINIMAL}    storage: [.foreshadow-data]\n"));
}

#[test]
fn readiness_is_asked_for_in_one_way() {
    check("    ready: { http: /, tcp: true }\n", 6, 12, "expected one of `http` and `tcp`, got both");
    check("    ready: { tcp: false }\n", 6, 12, "`tcp: false` without `http` leaves no way to be ready");
    let ready = accepted(&format!("{MINIMAL}    ready: {{ http: /healthz, timeout: 5s }}\n")).template;
    assert_eq!(ready.ready, Readiness::Http("/healthz".to_owned()));
    assert_eq!(ready.ready_timeout, Duration::from_secs(5));
}

#[test]
fn an_environment_can_be_written_once_and_used_twice() {
    let text = format!("{MINIMAL}    env: &e {{ A: x }}\nshadow: {{ env: *e }}\n");
    assert_eq!(accepted(&text).template.shadow_env["A"], "x");
}

/// `UPDATE_SCHEMA=1 cargo test -p foreshadow-config schema` writes the file anew; so does `cargo xtask schema`.
#[test]
fn every_committed_schema_is_current() {
    for (file, schema) in [
        ("config.schema.json", schema()),
        ("mirror.schema.json", alone_schema()),
        ("scenario.schema.json", scenario_schema()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas").join(file);
        let current = serde_json::to_string_pretty(schema.as_value()).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == current, "`{file}` is stale: run `cargo xtask schema` and commit the result");
    }
}

/// Lines of a file, one of them mangled, so that arbitrary text gets past the first key.
fn mangled() -> impl Strategy<Value = String> {
    let lines: Vec<&str> = REFERENCE.lines().collect();
    (0..lines.len(), 0..90_usize, "\\PC{0,6}|[0-9.\\-:{}\\[\\]&*!%m\"'\n\t ]{0,8}").prop_map(
        move |(line, column, text)| {
            let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            let at = lines[line].char_indices().nth(column).map_or(lines[line].len(), |(at, _)| at);
            lines[line].insert_str(at, &text);
            lines.join("\n")
        },
    )
}

#[test]
fn budgets_zones_and_egress_are_checked() {
    check(
        "action: { budget: { most: 0.10/h, live: 0.08/h } }\n",
        6,
        27,
        "1 lives with their shadows cost 0.16 an hour, more than `most` allows",
    );
    check(
        "action: { maintenance: [{ from: \"22:00\", lasts: 1h, zone: Mars/Phobos }] }\n",
        6,
        59,
        "expected a time zone such as `Europe/Berlin` or `UTC`, got `Mars/Phobos`",
    );
    check(
        "action: { maintenance: [{ days: [], from: \"22:00\", lasts: 1h }] }\n",
        6,
        33,
        "expected at least one day, got none",
    );
    let error = refused(&format!(
        "{MINIMAL}shadow: {{ egress: {{ allow: [{{ target: \"db:1\", amplify: maybe }}] }} }}\n"
    ));
    assert!(error.message().contains("maybe"), "{error}");
    let error = refused(&format!("{MINIMAL}shadow: {{ egress: {{ allow: [db] }} }}\n"));
    assert!(error.message().contains("a host and a port"), "{error}");
    check("knee: { every: 1m }\n", 6, 16, "expected `every` of `1h` or more, got `1m`");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        for text in [text, String::from_utf8_lossy(&bytes).into_owned()] {
            if let Err(error) = parse(&text, Path::new("/srv/shop")) {
                prop_assert!(1 <= error.line() && 1 <= error.column() && !error.with_line().is_empty());
            }
        }
    }

    #[test]
    fn no_mangled_file_panics(text in mangled()) {
        if let Err(error) = parse(&text, Path::new("/srv/shop")) {
            prop_assert!(1 <= error.line() && 1 <= error.column() && !error.with_line().is_empty());
        }
    }
}
