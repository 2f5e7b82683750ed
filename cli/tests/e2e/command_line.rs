//! Exit codes, errors, help.

use std::process::{Command, Stdio};

use crate::controller::foreshadow;

const MINIMAL: &str = "\
service: shop
listen: 127.0.0.1:0
platform:
  type: local
  local: { command: [sleep, \"1\"] }
";

fn with_config(text: &str, words: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("foreshadow.yaml");
    std::fs::write(&file, text).unwrap();
    foreshadow().args(words).arg(&file).output().unwrap()
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_value_is_shown_with_line_column_and_what_was_expected() {
    let output = with_config(&format!("{MINIMAL}compare: {{ effect: 15 }}\n"), &["check"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.starts_with("error: line 6 column 20: expected a percentage such as `15%`, got `15`"),
        "{text}"
    );
    assert!(text.contains("foreshadow.yaml:6:20"), "{text}");
}

#[test]
fn an_unknown_key_is_refused() {
    let output = with_config(&format!("{MINIMAL}tikc: 5s\n"), &["run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("tikc"));
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let output = foreshadow().args(["run", "no-such-file.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("no-such-file.yaml") && text.contains("= help:"), "{text}");
}

#[test]
fn without_a_controller_the_error_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["status", "pause", "resume", "stop"] {
        let output = foreshadow().arg(verb).arg("--state").arg(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert!(stderr(&output).contains("foreshadow run"), "{}", stderr(&output));
    }
}

#[test]
fn explain_without_a_journal_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = foreshadow().args(["explain", "a1", "--state"]).arg(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("journal"), "{}", stderr(&output));
}

#[test]
fn check_looks_at_the_machine_and_names_a_program_that_is_not_there() {
    let output = with_config(&MINIMAL.replace("sleep", "no-such-program"), &["check"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("FAIL  program") && text.contains("no-such-program") && text.contains("cgroups"),
        "{text}"
    );
}

#[test]
fn plan_shows_what_would_be_started_and_starts_nothing() {
    let output = with_config(MINIMAL, &["plan"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("observe: decides and says so, touches shadows only"), "the default mode: {text}");
    assert!(text.contains("judged after 65s"), "13 ticks, and not the 30 s of `verifyAfter`: {text}");
    assert!(text.contains("No controller runs"), "{text}");
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    assert_eq!(foreshadow().arg("--no-such-flag").output().unwrap().status.code(), Some(2));
    let help = foreshadow().arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes:"));
}

#[test]
fn a_reader_that_goes_away_is_a_quiet_success() {
    let mut child = foreshadow()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn completions_are_valid_bash() {
    let script = foreshadow().args(["completions", "bash"]).output().unwrap().stdout;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("foreshadow.bash");
    std::fs::write(&file, script).unwrap();
    assert!(Command::new("bash").arg("-n").arg(file).status().unwrap().success());
}
