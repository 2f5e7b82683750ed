use std::path::Path;

use serde_json::Value;

use super::*;

const FILE: &str = "service: shop\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    command: [serve]\n    env:\n      DATABASE_URL: postgres://app:hunter2@db.internal/shop\n      MAIL: mail.internal:587\n";

const MORE: &str = "shadow:\n  env: { MAIL: \"\" }\n  egress: { allow: [\"cache.internal:6379\", \"[::1]:53\"] }\nmirror:\n  routes:\n    - { path: /pay, mirror: false }\n    - { path: /pay/prices, mirror: true }\n";

fn config(text: &str, folder: &Path) -> Config {
    foreshadow_config::parse(text, folder).unwrap()
}

fn diverging(routes: &[(&str, u64)]) -> BTreeMap<String, u64> {
    routes.iter().map(|&(route, n)| (route.to_owned(), n)).collect()
}

/// The file with the lines of a proposal in it: where a block is there already its keys are added, lists are replaced.
fn applied(file: &str, proposal: &Proposal) -> String {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.into_iter()
                    .for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
            }
            (into, from) => *into = from,
        }
    }
    let mut whole: Value = serde_saphyr::from_str(file).unwrap();
    merge(&mut whole, serde_saphyr::from_str(&proposal.yaml).unwrap());
    // JSON is YAML.
    whole.to_string()
}

/// Everything that can be found, in a folder where the log of a shadow says what it lacks.
fn found(text: &str) -> (Vec<Check>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("state/logs");
    std::fs::create_dir_all(&logs).unwrap();
    let log = "connect ECONNREFUSED 10.0.0.1:5432\nconnect ECONNREFUSED cache.internal:6379\n\
               lookup db.internal: no such host\n";
    std::fs::write(logs.join("shadow-1.log"), log).unwrap();
    let seen = diverging(&[("GET /admin/users/{id}", 9), ("GET /pay/cards", 50), ("other", 6), ("/rare", 4)]);
    (propose(&config(text, folder.path()), &seen), folder)
}

#[test]
fn the_file_with_any_of_the_proposals_is_valid() {
    for text in [FILE.to_owned(), format!("{FILE}{MORE}")] {
        let (checks, folder) = found(&text);
        let proposals: Vec<&Proposal> = checks.iter().flat_map(|check| &check.proposals).collect();
        assert!(4 <= proposals.len(), "{checks:#?}");
        for proposal in proposals {
            config(&applied(&text, proposal), folder.path());
            if text == FILE {
                config(&format!("{text}{}", proposal.yaml), folder.path());
            }
        }
    }
}

#[test]
fn what_a_proposal_mends_is_not_proposed_again() {
    let text = format!("{FILE}{MORE}");
    let (checks, folder) = found(&text);
    for check in &checks {
        for proposal in &check.proposals {
            let seen = diverging(&[("GET /admin/users/{id}", 9)]);
            let after = propose(&config(&applied(&text, proposal), folder.path()), &seen);
            assert!(!after.iter().any(|other| other.found == check.found), "{} by {proposal:?}", check.found);
        }
    }
}

#[test]
fn each_finding_says_why_in_words_and_what_is_mended_already_is_left_out() {
    let (checks, _folder) = found(&format!("{FILE}{MORE}"));
    let says: Vec<&str> = checks.iter().map(|check| &*check.found).collect();
    assert_eq!(
        says,
        [
            "9 answers of shadows on `GET /admin/users/{id}` differ in kind from those of their lives",
            "6 answers of shadows on `other` differ in kind from those of their lives",
            "by `econnrefused` in `shadow-1.log` (once), a shadow could not reach 10.0.0.1:5432",
            "`DATABASE_URL` in `platform.local.env` names db.internal:5432, which `shadow.egress.allow` does not; by \
             `no such host` in `shadow-1.log` (once), a shadow could not reach it",
        ]
    );
    assert!(checks[1].proposals.is_empty(), "never everything");
    assert_eq!(
        checks[0].proposals[0].yaml,
        "mirror:\n  routes:\n    - { path: /pay, mirror: false }\n    - { path: /pay/prices, mirror: true }\n    - { path: /admin/users, mirror: false }\n"
    );
    assert_eq!(
        checks[2].proposals[0].yaml,
        "shadow:\n  egress:\n    allow: [\"cache.internal:6379\", \"[::1]:53\", \"10.0.0.1:5432\"]\n"
    );
    assert_eq!(checks[3].proposals[1].yaml, "shadow:\n  env:\n    DATABASE_URL: \"\"\n");
}

#[test]
fn no_value_of_a_variable_is_shown() {
    let (checks, _folder) = found(FILE);
    let all = serde_json::to_string(&checks).unwrap();
    assert!(all.contains("DATABASE_URL") && all.contains("db.internal:5432"), "{all}");
    for secret in ["hunter2", "app:", "/shop", "postgres://"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
}

#[test]
fn odd_names_and_paths_are_quoted() {
    assert_eq!(key("NO"), "\"NO\"");
    assert_eq!(key("a.b"), "\"a.b\"");
    assert_eq!(key("SMTP_HOST"), "SMTP_HOST");
    assert_eq!(text("/a b#c"), "\"/a b#c\"");
    assert_eq!(path_of("other"), "/");
    assert_eq!(path_of("GET /secret/*"), "/secret");
}
