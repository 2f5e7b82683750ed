//! What would mend a shadow that answers otherwise: each finding with lines for the configuration file.
//!
//! Three things tell: answers that differ by route, connections that the logs of shadows say were refused, and variables
//! that name something out of reach. No value of a variable is ever shown, only its name and the host and port in it.

mod address;
mod log;

use std::collections::BTreeMap;
use std::fmt::Write;

use foreshadow_config::Config;
use foreshadow_model::{EgressTarget, RouteRule};

use crate::doctor::Check;
use log::Refused;

/// Answers below this number are chance: a request that met a restart on one side.
const DIVERGING_MIN: u64 = 5;

/// Lines for the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// When to take it.
    pub when: String,
    /// The lines, from the outermost key on. Lists in them are whole: they take the place of those in the file.
    pub yaml: String,
}

/// Looks for what shadows lack. `diverging` is the number of answers that differ in kind, by route.
#[must_use]
pub fn propose(config: &Config, diverging: &BTreeMap<String, u64>) -> Vec<Check> {
    let Known { missing, mended } = Known::of(config);
    let known: Vec<EgressTarget> = missing.iter().map(|(_, target)| target.clone()).collect();
    let mut refused = log::refused(&config.state.join("logs"), &known);
    refused.retain(|refused| !mended.contains(&refused.target));
    let rules = &config.policy.mirror.routes;
    let often = diverging.iter().filter(|(_, n)| DIVERGING_MIN <= **n);
    let mut checks: Vec<Check> = often
        .filter(|(route, _)| RouteRule::may_mirror(rules, method_of(route), &path_of(route)))
        .map(|(route, &n)| about_route(route, n, rules))
        .collect();
    let allowed = &config.template.egress_allow;
    let named = |refused: &&Refused| known.contains(&refused.target);
    checks.extend(refused.iter().filter(|refused| !named(refused)).map(|it| about_refused(it, allowed)));
    checks.extend(missing.iter().map(|(name, target)| {
        let refused = refused.iter().find(|refused| refused.target == *target);
        about_variable(name, target, refused, allowed)
    }));
    checks
}

/// What the variables of lives name.
struct Known<'a> {
    /// What a shadow would be sent to and may not reach, with the variable.
    missing: Vec<(&'a str, EgressTarget)>,
    /// What it may reach, or is not sent to any more.
    mended: Vec<EgressTarget>,
}

impl<'a> Known<'a> {
    fn of(config: &'a Config) -> Self {
        let template = &config.template;
        let mut known = Self { missing: Vec::new(), mended: template.egress_allow.clone() };
        for (name, value) in &template.env {
            for target in address::of_variable(name, value) {
                if template.shadow_env.contains_key(name) {
                    known.mended.push(target);
                } else if !template.egress_allow.contains(&target) {
                    known.missing.push((name, target));
                }
            }
        }
        let Self { missing, mended } = &mut known;
        // Two variables may name one thing: it is out of the way only when both are.
        mended.retain(|target| !missing.iter().any(|(_, other)| other == target));
        known
    }
}

fn warn(what: &str, found: String, remedy: &str, proposals: Vec<Proposal>) -> Check {
    Check { what: what.into(), is_fine: false, is_fatal: false, found, remedy: remedy.into(), proposals }
}

fn about_route(route: &str, n: u64, rules: &[RouteRule]) -> Check {
    let path = path_of(route);
    let keep = Proposal {
        when: "if these requests need something that a shadow shall not have, keep them from it:".into(),
        yaml: routes(rules, &path),
    };
    warn(
        "diverging answers",
        format!("{n} answers of shadows on `{route}` differ in kind from those of their lives"),
        "give the shadow what it lacks, under `shadow.egress.allow`, `shadow.env` or `platform.local.storage`; one that \
         cannot reach something says so in its log (`foreshadow status --wide`)",
        // Nothing is left to compare when every path is kept from shadows.
        if path == "/" { Vec::new() } else { vec![keep] },
    )
}

fn about_refused(refused: &Refused, allowed: &[EgressTarget]) -> Check {
    let when =
        "if it is a service of its own that a shadow may use (what a shadow writes there is written twice):";
    let proposals = vec![Proposal { when: when.into(), yaml: egress(allowed, &refused.target) }];
    let found = format!("{} could not reach {}", refused.in_words(), refused.target);
    warn("egress", found, "a shadow reaches nothing but what `shadow.egress.allow` names", proposals)
}

fn about_variable(
    name: &str,
    target: &EgressTarget,
    refused: Option<&Refused>,
    allowed: &[EgressTarget],
) -> Check {
    let mut found =
        format!("`{name}` in `platform.local.env` names {target}, which `shadow.egress.allow` does not");
    if let Some(refused) = refused {
        write!(found, "; {} could not reach it", refused.in_words()).expect("text can be written to");
    }
    let proposals = vec![
        Proposal {
            when: "if answers need it and it is harmless to ask it twice (what is only read, such as a replica):"
                .into(),
            yaml: egress(allowed, target),
        },
        Proposal {
            when: "if it does something (mail, money, writes): take it out of the shadow's hands, or name a stand-in:"
                .into(),
            yaml: format!("shadow:\n  env:\n    {}: \"\"\n", key(name)),
        },
    ];
    warn("egress", found, "let the shadow reach it, or give it another value there", proposals)
}

/// The method of a route, `GET /item/{}`.
fn method_of(route: &str) -> &str {
    route.split_once(' ').map_or("GET", |(method, _)| method)
}

/// The start of the path that every request of this route has: up to the first part that is not the same for all.
fn path_of(route: &str) -> String {
    let path = route.split_whitespace().last().unwrap_or_default();
    let fixed: Vec<&str> = path
        .split('/')
        .take_while(|part| !part.contains(['{', '*', ':', '<', '…']))
        .filter(|part| !part.is_empty())
        .collect();
    if path.starts_with('/') { format!("/{}", fixed.join("/")) } else { "/".into() }
}

/// `mirror.routes` with one more path that is not mirrored.
fn routes(rules: &[RouteRule], path: &str) -> String {
    let line = |path: &str, mirror: bool, methods: &[String]| {
        let methods =
            if methods.is_empty() { String::new() } else { format!(", methods: [{}]", methods.join(", ")) };
        format!("    - {{ path: {}, mirror: {mirror}{methods} }}\n", text(path))
    };
    let others = rules.iter().filter(|rule| rule.path != path);
    let lines: String = others.map(|rule| line(&rule.path, rule.mirror, &rule.methods)).collect();
    format!("mirror:\n  routes:\n{lines}{}", line(path, false, &[]))
}

/// `shadow.egress.allow` with one more target.
fn egress(allowed: &[EgressTarget], target: &EgressTarget) -> String {
    let all: Vec<String> = allowed.iter().chain([target]).map(|target| format!("\"{target}\"")).collect();
    format!("shadow:\n  egress:\n    allow: [{}]\n", all.join(", "))
}

/// A text as YAML takes it: bare where it can be, or else as JSON, which is YAML.
fn text(bare: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/_.~-".contains(c);
    if bare.starts_with('/') && bare.chars().all(is_plain) {
        bare.to_owned()
    } else {
        serde_json::Value::from(bare).to_string()
    }
}

/// The name of a variable as a key: words that mean something else in YAML are quoted.
fn key(name: &str) -> String {
    const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !WORDS.contains(&name.to_ascii_lowercase().as_str());
    if is_plain { name.to_owned() } else { serde_json::Value::from(name).to_string() }
}

#[cfg(test)]
mod tests;
