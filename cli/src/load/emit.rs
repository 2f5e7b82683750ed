//! What is advised, written into a configuration: the block `forecast`, and nothing else of it is touched.

use std::path::Path;

use foreshadow_engine::config;

use super::usage;
use crate::command::absolute_folder;
use crate::failure::Failure;

/// Puts the block in place of the one that is there, or at the end; the file must be a valid configuration then, if it was one before.
pub(super) fn emit(file: &Path, block: &str) -> Result<(), Failure> {
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::unreadable(file, &error)),
    };
    let after = with_block(&before, block);
    if !before.trim().is_empty() {
        let folder = absolute_folder(file)?;
        config::parse(&after, &folder).map_err(|error| error.in_file(file.display().to_string()))?;
    }
    write_whole(file, &after)
        .map_err(|error| usage(format!("--emit: failed to write `{}`: {error}", file.display())))
}

/// A reader sees the file before or after, never half of it.
fn write_whole(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    // A link goes on pointing there.
    let file = &std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut written = tempfile::NamedTempFile::new_in(folder)?;
    written.write_all(text.as_bytes())?;
    if let Ok(known) = std::fs::metadata(file) {
        written.as_file().set_permissions(known.permissions())?;
    }
    written.as_file().sync_all()?;
    written.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// The text with this block as its `forecast:`.
fn with_block(text: &str, block: &str) -> String {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let block = block.replace('\n', end);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(from) = lines.iter().position(|line| line.starts_with("forecast:")) else {
        let gap = if text.is_empty() { "" } else { end };
        let last = if text.is_empty() || text.ends_with('\n') { "" } else { end };
        return format!("{text}{last}{gap}{block}");
    };
    let is_indented = |line: &str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
    // Comments and blank lines are of the block if more of it comes behind them.
    let is_between = |line: &str| line.trim().is_empty() || line.starts_with('#');
    let rest = &lines[from + 1..];
    let reach = rest.iter().take_while(|line| is_indented(line) || is_between(line)).count();
    let to = rest[..reach].iter().rposition(|line| is_indented(line)).map_or(from + 1, |at| from + 2 + at);
    [&lines[..from].concat(), &block, &lines[to..].concat()].map(String::as_str).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_takes_the_place_of_the_one_before_and_nothing_else_moves() {
        let text = "service: shop\n# why\nforecast:\n  # old\n  capacity: 1/s\n\nalerts:\n  webhook: x\n";
        assert_eq!(
            with_block(text, "forecast:\n  quantile: 97%\n"),
            "service: shop\n# why\nforecast:\n  quantile: 97%\n\nalerts:\n  webhook: x\n"
        );
        assert_eq!(with_block("service: shop", "forecast: {}\n"), "service: shop\n\nforecast: {}\n");
        assert_eq!(with_block("", "forecast: {}\n"), "forecast: {}\n");
        let noted = "forecast:\n  quantile: 90%\n# note\n  capacity: 2/s\n# of alerts\nalerts: {}\n";
        assert_eq!(with_block(noted, "forecast: {}\n"), "forecast: {}\n# of alerts\nalerts: {}\n");
        assert_eq!(with_block("a: 1\r\nforecast: x\r\n", "forecast: {}\n"), "a: 1\r\nforecast: {}\r\n");
        let inline = "forecast: { quantile: 90% }\ntick: 5s\n";
        assert_eq!(with_block(inline, "forecast: {}\n"), "forecast: {}\ntick: 5s\n");
    }

    #[test]
    fn a_file_that_would_not_be_valid_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.yaml");
        std::fs::write(&file, "nonsense: true\n").unwrap();
        assert!(emit(&file, "forecast:\n  quantile: 97%\n").is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "nonsense: true\n");
        let new = folder.path().join("new.yaml");
        emit(&new, "forecast:\n  quantile: 97%\n").unwrap();
        assert_eq!(std::fs::read_to_string(&new).unwrap(), "forecast:\n  quantile: 97%\n");
    }
}
