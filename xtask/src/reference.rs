//! `docs/configuration.md`, written from the schema of the configuration file.
//!
//! The schema comes from the types that read the file, so the reference cannot say what the program does not do.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

const SCHEMA: &str = "schemas/config.schema.json";
const REFERENCE: &str = "docs/configuration.md";

const HEAD: &str = "# Configuration reference

Written by `cargo xtask schema` from `schemas/config.schema.json`; do not edit. A commented file with every key is
[`config/examples/reference.yaml`](../config/examples/reference.yaml).

Only `service`, `platform.type` and `platform.local.command` must be given. Quantities carry their unit (`5s`, `15%`,
`512Mi`, `250m`, `200/s`); a bare number is refused. Unknown keys are refused with line and column.
";

/// Writes the reference anew.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let path = root.join(REFERENCE);
    std::fs::write(&path, text(root)?).with_context(|| format!("failed to write `{}`", path.display()))
}

fn text(root: &Path) -> anyhow::Result<String> {
    let path = root.join(SCHEMA);
    let schema =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
    render(&serde_json::from_str(&schema)?)
}

fn render(schema: &Value) -> anyhow::Result<String> {
    let mut out = HEAD.to_owned();
    let simple = |value: &&Value| fields(schema, value).is_none();
    let top = schema["properties"].as_object().context("a schema without properties")?;
    out += "\n## The file itself\n\n";
    table(
        &mut out,
        top.iter().filter(|(_, value)| simple(value)).map(|(key, value)| (key.clone(), value)),
        schema,
    )?;
    for (key, value) in top.iter().filter(|(_, value)| !simple(value)) {
        write!(out, "\n## `{key}`\n\n{}\n\n", one_line(description(schema, value)))?;
        let mut rows = Vec::new();
        keys(schema, key, value, &mut rows);
        table(&mut out, rows.into_iter(), schema)?;
    }
    Ok(out)
}

/// The keys below `value`, each with its path. A block has a row of its own before those of its keys: what they are
/// together, and what holds without any of them, stands nowhere else.
fn keys<'a>(schema: &'a Value, path: &str, value: &'a Value, rows: &mut Vec<(String, &'a Value)>) {
    for (key, value) in fields(schema, value).into_iter().flatten() {
        let path = format!("{path}.{key}");
        rows.push((path.clone(), value));
        keys(schema, &path, value, rows);
        if let Some(item) = value.get("items") {
            keys(schema, &format!("{path}[]"), item, rows);
        }
    }
}

fn table<'a>(
    out: &mut String,
    rows: impl Iterator<Item = (String, &'a Value)>,
    schema: &'a Value,
) -> anyhow::Result<()> {
    *out += "| key | value | meaning |\n|---|---|---|\n";
    for (path, value) in rows {
        let meaning = one_line(description(schema, value));
        if meaning.is_empty() {
            bail!("`{path}` is not described in the schema");
        }
        writeln!(out, "| `{path}` | {} | {} |", kind(schema, value), meaning.replace('|', "\\|"))?;
    }
    Ok(())
}

/// What is behind a reference, if it is one; an optional value is the value.
fn behind<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let optional = value.get("anyOf").and_then(Value::as_array);
    let value = optional.and_then(|all| all.iter().find(|one| one["type"] != "null")).unwrap_or(value);
    match value.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/")) {
        Some(name) => &schema["$defs"][name],
        None => value,
    }
}

fn fields<'a>(schema: &'a Value, value: &'a Value) -> Option<&'a Map<String, Value>> {
    behind(schema, value).get("properties")?.as_object()
}

fn description<'a>(schema: &'a Value, value: &'a Value) -> &'a str {
    let own = value.get("description").or_else(|| behind(schema, value).get("description"));
    own.and_then(Value::as_str).unwrap_or_default()
}

fn kind(schema: &Value, value: &Value) -> String {
    let default = value.get("default").and_then(Value::as_str);
    let value = behind(schema, value);
    if let Some(all) = value.get("oneOf").and_then(Value::as_array) {
        let words = all.iter().filter_map(|one| one["const"].as_str());
        return words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(example) = value["examples"][0].as_str().map(|example| default.unwrap_or(example)) {
        return format!("like `{example}`");
    }
    let name = match &value["type"] {
        Value::Array(all) => all.iter().find(|one| *one != "null").and_then(Value::as_str),
        one => one.as_str(),
    };
    match name {
        Some("array") => {
            format!("list of {}", kind(schema, &value["items"]).replace("like ", "values like "))
        }
        Some("object") if value.get("properties").is_some() => "block".into(),
        Some("object") => "names with values".into(),
        Some("integer") => "number".into(),
        Some("boolean") => "`true`, `false`".into(),
        Some("string") => "text".into(),
        _ => String::new(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_reference_is_current() {
        let root = crate::root().unwrap();
        let committed = std::fs::read_to_string(root.join(REFERENCE)).unwrap_or_default();
        assert!(committed == text(&root).unwrap(), "run `cargo xtask schema` and commit `{REFERENCE}`");
    }

    #[test]
    fn a_key_without_a_description_is_refused() {
        let schema = serde_json::json!({ "properties": { "mode": { "type": "string" } } });
        assert!(render(&schema).unwrap_err().to_string().contains("`mode` is not described"));
    }

    #[test]
    fn a_block_has_a_row_before_those_of_its_keys() {
        let keys = serde_json::json!({ "tcp": { "description": "A port.", "type": "string" } });
        let ready = serde_json::json!({ "description": "When.", "type": "object", "properties": keys });
        let local = serde_json::json!({ "description": "Where.", "properties": { "ready": ready } });
        let text = render(&serde_json::json!({ "properties": { "local": local } })).unwrap();
        let rows = "| `local.ready` | block | When. |\n| `local.ready.tcp` | text | A port. |\n";
        assert!(text.ends_with(rows), "{text}");
    }
}
