//! The rules of the mirror.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use foreshadow_model::{
    Bytes, MirrorPolicy, RedactMode, RedactPlace, RedactPolicy, RedactRule, RouteRule, SampleRate, SessionKey,
};

use super::{at_least, count, front, path, percent, within};
use crate::error::Refusal;
use crate::file::{self, Mirror, Session};
use crate::notation::{Located, Notation, Scalar, Text};
use crate::units::Percent;

/// The rules, with paths of theirs taken from the folder of the file.
pub(crate) fn policy(mirror: Mirror, directory: &Path) -> Result<MirrorPolicy, Refusal> {
    let (min, max) = (&mirror.rate.min, &mirror.rate.max);
    let (rate_min, rate_max) = (sample_rate(min, "min")?, sample_rate(max, "max")?);
    if max.get() < min.get() {
        let (min_text, max_text) = (min.get().write(), max.get().write());
        let message = format!("expected `min` not above `max`, got `{min_text}` and `{max_text}`");
        return Err(Refusal::new(message).at(min).at(max));
    }
    let budget = &mirror.budget;
    let copy_bytes = within(&budget.copy_size, "copySize", Bytes::new(1 << 10), Bytes::mebi(1))?;
    let queue_bytes = *budget.queue_size.get();
    if queue_bytes < copy_bytes {
        let (queue, copy) = (queue_bytes.write(), copy_bytes.write());
        let message = format!("expected `queueSize` of at least one `copySize`, got `{queue}` and `{copy}`");
        return Err(Refusal::new(message).at(&budget.queue_size).at(&budget.copy_size));
    }
    Ok(MirrorPolicy {
        rate_min,
        rate_max,
        copies_per_second: count(&budget.copies_per_second, "copiesPerSecond", 1, u32::MAX)?,
        copied_per_second: at_least(&budget.size_per_second, "sizePerSecond", copy_bytes)?,
        time_per_second: time_per_second(budget.time_per_second.as_ref())?,
        utilisation: within(&budget.utilisation, "utilisation", percent(1.0), percent(100.0))?.fraction(),
        queue: count(&budget.queue, "queue", 1, u32::MAX)?,
        queue_bytes,
        copy_bytes,
        shadow_timeout: at_least(&mirror.shadow_timeout, "shadowTimeout", Duration::from_millis(10))?,
        session: SessionKey::try_from(mirror.session)?,
        redact: redact(mirror.redact, directory)?,
        routes: routes(mirror.routes)?,
        compare_bodies: mirror.compare_bodies,
        front: front::rules(mirror.front, directory)?,
    })
}

fn time_per_second(scalar: Option<&Scalar<Duration>>) -> Result<Option<Duration>, Refusal> {
    scalar.map(|scalar| at_least(scalar, "timePerSecond", Duration::from_millis(10))).transpose()
}

pub(super) fn sample_rate(scalar: &Scalar<Percent>, name: &str) -> Result<SampleRate, Refusal> {
    let share = within(scalar, name, percent(0.0), percent(100.0))?;
    Ok(SampleRate::clamped(share.fraction()))
}

impl TryFrom<Located<Session>> for SessionKey {
    type Error = Refusal;

    fn try_from(session: Located<Session>) -> Result<Self, Refusal> {
        let place = session.at;
        let Session { cookie, header, client_address } = session.value;
        match (cookie, header, client_address.unwrap_or(false)) {
            (None, None, false) => Ok(Self::Connection),
            (Some(name), None, false) => Ok(Self::Cookie(name.0.0)),
            (None, Some(name), false) => Ok(Self::Header(name.0.0)),
            (None, None, true) => Ok(Self::ClientAddress),
            _ => Err(Refusal::new("expected one of `cookie`, `header` and `clientAddress`, got more")
                .at_place(place)
                .help("a request without the cookie or header falls back to its connection by itself")),
        }
    }
}

pub(crate) fn redact(redact: file::Redact, directory: &Path) -> Result<RedactPolicy, Refusal> {
    let file::Redact { tokenise, mask, remove, terms, descriptors } = redact;
    // Of two for one value the first counts: the one that leaves less.
    let blocks = [(remove, RedactMode::Remove), (mask, RedactMode::Mask), (tokenise, RedactMode::Tokenise)];
    let mut rules = Vec::new();
    for (hidden, mode) in blocks {
        let file::Hidden { headers, query, form, json, grpc } = hidden;
        rules.extend(headers.into_iter().map(|name| RedactRule {
            place: RedactPlace::Header,
            name: name.0.0,
            mode,
        }));
        for (place, names) in [
            (RedactPlace::Query, query),
            (RedactPlace::Form, form),
            (RedactPlace::Json, json),
            (RedactPlace::Grpc, grpc),
        ] {
            for name in names {
                rules.push(RedactRule { place, name: rule_name(place, name)?, mode });
            }
        }
    }
    if let Some(empty) = terms.iter().find(|term| term.value.0.trim().is_empty()) {
        return Err(Refusal::new("expected a word, got nothing").at(empty));
    }
    let descriptors = descriptors.iter().map(|file| path(file, directory)).collect::<Result<_, _>>()?;
    Ok(RedactPolicy { rules, terms: terms.into_iter().map(|term| term.value.0).collect(), descriptors })
}

fn rule_name(place: RedactPlace, name: Located<Text>) -> Result<String, Refusal> {
    let text = &name.value.0;
    let (is_fine, expected) = match place {
        RedactPlace::Json | RedactPlace::Grpc => {
            (text.split('.').all(|part| !part.is_empty()), "names with dots between such as `user.name`")
        }
        RedactPlace::Form => (!text.is_empty(), "the name of a field"),
        _ => (!text.is_empty() && !text.contains(['&', '=', '#']), "the name of a query parameter"),
    };
    if !is_fine {
        return Err(Refusal::new(format!("expected {expected}, got `{text}`")).at(&name));
    }
    Ok(name.value.0)
}

fn routes(routes: Vec<file::Route>) -> Result<Vec<RouteRule>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::with_capacity(routes.len());
    for route in routes {
        if !seen.insert(route.path.get().clone()) {
            let message = format!("duplicate route `{}`", route.path.get().0);
            return Err(Refusal::new(message).at(&route.path).help("keep one of them"));
        }
        let methods = methods(route.methods, route.mirror)?;
        rules.push(RouteRule { path: route.path.into_inner().0, mirror: route.mirror, methods });
    }
    Ok(rules)
}

/// Methods that an operator says are harmless. Some are by no means.
fn methods(methods: Vec<Located<Text>>, may_mirror: bool) -> Result<Vec<String>, Refusal> {
    const HARMLESS: [&str; 4] = ["POST", "PUT", "REPORT", "SEARCH"];
    for method in &methods {
        if !may_mirror {
            return Err(Refusal::new("expected no `methods` beside `mirror: false`").at(method));
        }
        if !HARMLESS.contains(&method.value.0.as_str()) {
            let message = format!("expected one of `{}`, got `{}`", HARMLESS.join("`, `"), method.value.0);
            return Err(Refusal::new(message)
                .at(method)
                .help("`GET`, `HEAD` and `OPTIONS` are copied without a word; deleting and patching is never harmless"));
        }
    }
    Ok(methods.into_iter().map(|method| method.value.0).collect())
}
