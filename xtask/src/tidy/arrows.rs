//! Which crate may use which. The tables here are the table of the design (`DESIGN.md`, "The house") as data;
//! changing one means changing both, and asking first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// The crates each crate may use, beside `model`, which everybody may.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("observe", &[]),
    ("compare", &[]),
    ("forecast", &[]),
    ("decide", &[]),
    ("config", &[]),
    ("mirror", &[]),
    ("probe", &[]),
    ("act", &[]),
    ("platform", &["act"]),
    ("store", &[]),
    ("serve", &[]),
    (
        "engine",
        &[
            "observe", "compare", "forecast", "decide", "config", "mirror", "probe", "act", "platform",
            "store", "serve", "testkit",
        ],
    ),
    ("cli", &["engine"]),
    ("testkit", &[]),
    // Tools for developers: the matrix judges by what the product judges by.
    ("xtask", &["compare", "probe"]),
];

/// Crates that read no clock, no file and no socket, and therefore link nothing that can, however indirectly.
const PURE: &[&str] = &["model", "observe", "compare", "forecast", "decide", "config"];

/// What a pure crate never links.
const WORLD: &[&str] = &["tokio", "hyper", "rustix", "nix", "rusqlite", "axum", "kube", "socket2", "mio"];

/// Crates of others that appear in one crate of ours and nowhere else.
const ONLY_IN: &[(&str, &str)] = &[
    ("kube", "platform"),
    ("k8s-openapi", "platform"),
    ("bollard", "platform"),
    ("rusqlite", "store"),
    ("pco", "store"),
    ("axum", "serve"),
    ("clap", "cli"),
    ("miette", "cli"),
];

/// A crate of the workspace, by the name of its folder.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    /// Crates of the workspace it names.
    arrows: Vec<Arrow>,
    /// Crates of others it names, except for its tests.
    direct: BTreeSet<String>,
    /// Crates of others it links, however indirectly, except in its tests.
    linked: BTreeSet<String>,
}

#[derive(Debug)]
struct Arrow {
    to: String,
    is_for_tests: bool,
}

/// Reads the workspace from `cargo metadata`.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<Member>> {
    let metadata =
        MetadataCommand::new().current_dir(root).exec().context("failed to run `cargo metadata`")?;
    let edges = edges(&metadata)?;
    let names: BTreeMap<&PackageId, &str> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut members = Vec::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().and_then(|folder| folder.file_name());
        let mut member = Member {
            name: folder.context("a manifest outside of any folder")?.to_owned(),
            arrows: Vec::new(),
            direct: BTreeSet::new(),
            linked: linked(&package.id, &edges, &names),
        };
        for dependency in &package.dependencies {
            let is_for_tests = dependency.kind == DependencyKind::Development;
            match dependency.path.as_ref().and_then(|path| path.file_name()) {
                Some(to) => member.arrows.push(Arrow { to: to.to_owned(), is_for_tests }),
                None if is_for_tests => {}
                None => drop(member.direct.insert(dependency.name.clone())),
            }
        }
        members.push(member);
    }
    Ok(members)
}

/// What each package links, without what only its tests need.
fn edges(metadata: &Metadata) -> anyhow::Result<BTreeMap<&PackageId, Vec<&PackageId>>> {
    let resolve = metadata.resolve.as_ref().context("`cargo metadata` resolved nothing")?;
    let links = |node: &'_ cargo_metadata::NodeDep| {
        node.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
    };
    Ok(resolve
        .nodes
        .iter()
        .map(|node| (&node.id, node.deps.iter().filter(|dep| links(dep)).map(|dep| &dep.pkg).collect()))
        .collect())
}

fn linked(
    start: &PackageId,
    edges: &BTreeMap<&PackageId, Vec<&PackageId>>,
    names: &BTreeMap<&PackageId, &str>,
) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![start];
    while let Some(package) = open.pop() {
        for next in edges.get(package).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen.into_iter().filter_map(|id| names.get(id)).map(|name| (*name).to_owned()).collect()
}

/// Every arrow that the tables do not have, one sentence each.
pub(super) fn violations(members: &[Member]) -> Vec<String> {
    let mut out = Vec::new();
    for member in members {
        let name = member.name.as_str();
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
            out.push(format!("crate `{name}` has no row in the table of the design and in {}", file!()));
            continue;
        };
        for arrow in &member.arrows {
            let to = arrow.to.as_str();
            let is_test_world = arrow.is_for_tests && to == "testkit";
            if to != "model" && !is_test_world && !allowed.contains(&to) {
                out.push(format!("`{name}` may not use `{to}`: the table of the design has no such arrow"));
            }
        }
        if PURE.contains(&name) {
            for world in member.linked.iter().filter(|linked| WORLD.contains(&linked.as_str())) {
                out.push(format!("`{name}` is pure and may not link `{world}`"));
            }
        }
        for (theirs, ours) in ONLY_IN.iter().filter(|(theirs, _)| member.direct.contains(*theirs)) {
            if name != *ours && name != "xtask" {
                out.push(format!("`{name}` may not use `{theirs}`, which belongs to `{ours}` alone"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, arrows: &[(&str, bool)], theirs: &[&str]) -> Member {
        let theirs: BTreeSet<String> = theirs.iter().map(ToString::to_string).collect();
        let arrow =
            |(to, is_for_tests): &(&str, bool)| Arrow { to: (*to).to_owned(), is_for_tests: *is_for_tests };
        Member {
            name: name.to_owned(),
            arrows: arrows.iter().map(arrow).collect(),
            direct: theirs.clone(),
            linked: theirs,
        }
    }

    fn check(member: Member, expected: &[&str]) {
        assert_eq!(violations(&[member]), expected);
    }

    #[test]
    fn a_forbidden_arrow_is_found() {
        let message = "`decide` may not use `platform`: the table of the design has no such arrow";
        check(member("decide", &[("model", false), ("platform", false)], &[]), &[message]);
        let message = "`cli` may not use `store`: the table of the design has no such arrow";
        check(member("cli", &[("engine", false), ("store", true)], &[]), &[message]);
        let message = "`model` may not use `observe`: the table of the design has no such arrow";
        check(member("model", &[("observe", false)], &[]), &[message]);
    }

    #[test]
    fn the_arrows_of_the_design_are_allowed() {
        check(member("platform", &[("model", false), ("act", false)], &["tokio", "kube"]), &[]);
        check(member("engine", &[("testkit", false), ("serve", false)], &["tokio"]), &[]);
        check(member("decide", &[("testkit", true)], &["serde"]), &[]);
    }

    #[test]
    fn a_pure_crate_that_links_the_world_is_found() {
        check(member("compare", &[], &["tokio"]), &["`compare` is pure and may not link `tokio`"]);
    }

    #[test]
    fn kubernetes_stays_in_its_crate() {
        let message = "`mirror` may not use `kube`, which belongs to `platform` alone";
        check(member("mirror", &[], &["kube"]), &[message]);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let found = violations(&[member("misc", &[], &[])]);
        assert!(found[0].starts_with("crate `misc` has no row"), "{found:?}");
    }

    #[test]
    fn every_name_in_the_tables_has_a_row() {
        let has_row = |name: &str| ARROWS.iter().any(|(row, _)| *row == name);
        let used = ARROWS.iter().flat_map(|(_, allowed)| *allowed).chain(PURE);
        assert!(used.chain(ONLY_IN.iter().map(|(_, ours)| ours)).all(|name| has_row(name)));
    }
}
