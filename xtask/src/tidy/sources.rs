//! Rules for the text of sources: where `unsafe` may stand, how long a file may be, and what is not left lying about.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::code::{line, parts, words};

/// Where `unsafe` may stand, by the start of the path. The compiler denies it everywhere; this list keeps an
/// `expect` of that lint from spreading.
const UNSAFE_IN: &[&str] = &["probe/", "mirror/src/capture", "platform/src/local/launch"];

/// Lines above which a file asks a question, and above which it is split.
const LINES_ASKED: usize = 500;
const LINES_MAX: usize = 800;

/// Names that say nothing about what is in the file, and `mod.rs`, of which an editor shows ten alike.
const NAMES_REFUSED: &[&str] = &["mod.rs", "utils.rs", "util.rs", "types.rs", "helpers.rs"];

/// Macros that stand for code that is not there.
const MACROS_REFUSED: &[&str] = &["todo", "unimplemented", "dbg"];

/// Words in comments that stand for work that is not done.
const MARKS_REFUSED: &[&str] = &["FIXME", "XXX"];

/// What an ignored test may say: what it needs, or that it is a long one.
const IGNORED_FOR: &[&str] = &["needs ", "long"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) errors: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) files: usize,
}

/// Looks through the sources of these folders.
pub(super) fn walk<'a>(root: &Path, folders: impl Iterator<Item = &'a str>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for folder in folders {
        walk_folder(root, Path::new(folder), &mut report)?;
    }
    Ok(report)
}

fn walk_folder(root: &Path, folder: &Path, report: &mut Report) -> anyhow::Result<()> {
    let full = root.join(folder);
    let entries = fs::read_dir(&full).with_context(|| format!("failed to list `{}`", full.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(folder.join(entry?.file_name()));
    }
    paths.sort();
    for path in paths {
        let full = root.join(&path);
        let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if full.is_dir() && !is_hidden && !path.ends_with("target") && !path.ends_with("node_modules") {
            walk_folder(root, &path, report)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&full).with_context(|| format!("failed to read `{}`", full.display()))?;
            file(&path.to_string_lossy(), &text, report);
        }
    }
    Ok(())
}

/// Looks through one file. `path` is relative to the workspace.
fn file(path: &str, text: &str, report: &mut Report) {
    report.files += 1;
    let name = path.rsplit('/').next().unwrap_or(path);
    if NAMES_REFUSED.contains(&name) {
        report.errors.push(format!("{path}: name it by what is in it, not `{name}`"));
    }
    let lines = text.lines().count();
    if LINES_MAX < lines {
        report.errors.push(format!("{path}: {lines} lines, split it ({LINES_MAX} at most)"));
    } else if LINES_ASKED < lines {
        report.notes.push(format!("{path}: {lines} lines, does it do two things?"));
    }
    let parts = parts(text);
    let mut refuse = |at: usize, message: &str| {
        report.errors.push(format!("{path}:{}: {message}", line(text, at)));
    };
    if !UNSAFE_IN.iter().any(|allowed| path.starts_with(allowed)) {
        words(&parts.code, "unsafe").for_each(|at| refuse(at, "`unsafe` outside of its modules"));
    }
    for name in MACROS_REFUSED {
        let calls = words(&parts.code, name).filter(|at| parts.code[at + name.len()..].starts_with('!'));
        calls.for_each(|at| refuse(at, &format!("`{name}!` stands for code that is not there")));
    }
    for mark in MARKS_REFUSED {
        words(&parts.comments, mark).for_each(|at| refuse(at, &format!("`{mark}` is no comment to keep")));
    }
    for at in words(&parts.comments, "TODO") {
        if !parts.comments[at..].starts_with("TODO(#") {
            refuse(at, "a note of work to do names its issue: `TODO(#12)`");
        }
    }
    for (at, _) in parts.code.match_indices("#[ignore") {
        if !is_reasoned(&text[at..]) {
            refuse(at, "an ignored test says what it `needs ...`, or that it is `long`");
        }
    }
}

/// Whether an attribute `#[ignore = "..."]` gives one of the accepted reasons.
fn is_reasoned(attribute: &str) -> bool {
    let reason = attribute.split(']').next().and_then(|attribute| attribute.split('"').nth(1));
    reason.is_some_and(|reason| IGNORED_FOR.iter().any(|start| reason.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let mut report = Report::default();
        file(path, text, &mut report);
        assert_eq!(report.errors, expected);
    }

    #[test]
    fn unsafe_stays_in_its_modules() {
        let code = "fn f() {\n    unsafe { g() }\n}\n";
        check("serve/src/api.rs", code, &["serve/src/api.rs:2: `unsafe` outside of its modules"]);
        check("probe/src/perf.rs", code, &[]);
        check("serve/src/api.rs", "// unsafe\n#![deny(unsafe_code)]\nlet a = \"unsafe\";\n", &[]);
    }

    #[test]
    fn long_files_are_split_and_shorter_ones_noted() {
        let long = "a\n".repeat(801);
        check("act/src/a.rs", &long, &["act/src/a.rs: 801 lines, split it (800 at most)"]);
        let mut report = Report::default();
        file("act/src/a.rs", &"a\n".repeat(501), &mut report);
        assert_eq!((report.errors.len(), report.notes.len()), (0, 1));
    }

    #[test]
    fn names_say_what_is_in_the_file() {
        check("act/src/utils.rs", "", &["act/src/utils.rs: name it by what is in it, not `utils.rs`"]);
        check("act/src/a/mod.rs", "", &["act/src/a/mod.rs: name it by what is in it, not `mod.rs`"]);
    }

    #[test]
    fn nothing_unfinished_is_left() {
        check("a/b.rs", "todo!()", &["a/b.rs:1: `todo!` stands for code that is not there"]);
        check("a/b.rs", "\n// FIXME later", &["a/b.rs:2: `FIXME` is no comment to keep"]);
        check("a/b.rs", "// TODO x", &["a/b.rs:1: a note of work to do names its issue: `TODO(#12)`"]);
        check("a/b.rs", "// TODO(#7): x\nlet todo = \"todo!() FIXME\";", &[]);
    }

    #[test]
    fn an_ignored_test_has_a_reason() {
        let message = "a/b.rs:1: an ignored test says what it `needs ...`, or that it is `long`";
        check("a/b.rs", "#[ignore]\nfn f() {}", &[message]);
        check("a/b.rs", "#[ignore = \"flaky\"]", &[message]);
        check("a/b.rs", "#[ignore = \"needs docker\"]\n#[ignore = \"long: a minute\"]", &[]);
    }
}
