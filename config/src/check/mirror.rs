//! The rules of the mirror.

use std::collections::BTreeSet;
use std::time::Duration;

use foreshadow_model::{Bytes, MirrorPolicy, RedactPolicy, RouteRule, SampleRate, SessionKey};

use super::{at_least, count, percent, within};
use crate::error::Refusal;
use crate::file::{Mirror, Session};
use crate::notation::{Located, Notation, Scalar};
use crate::units::Percent;

impl TryFrom<Mirror> for MirrorPolicy {
    type Error = Refusal;

    fn try_from(mirror: Mirror) -> Result<Self, Refusal> {
        let (min, max) = (&mirror.rate.min, &mirror.rate.max);
        let (rate_min, rate_max) = (sample_rate(min, "min")?, sample_rate(max, "max")?);
        if max.get() < min.get() {
            let (min_text, max_text) = (min.get().write(), max.get().write());
            let message = format!("expected `min` not above `max`, got `{min_text}` and `{max_text}`");
            return Err(Refusal::new(message).at(min).at(max));
        }
        let budget = &mirror.budget;
        let copy_bytes = at_least(&budget.copy_size, "copySize", Bytes::new(1 << 10))?;
        let queue_bytes = *budget.queue_size.get();
        if queue_bytes < copy_bytes {
            let (queue, copy) = (queue_bytes.write(), copy_bytes.write());
            let message =
                format!("expected `queueSize` of at least one `copySize`, got `{queue}` and `{copy}`");
            return Err(Refusal::new(message).at(&budget.queue_size).at(&budget.copy_size));
        }
        Ok(Self {
            rate_min,
            rate_max,
            copies_per_second: count(&budget.copies_per_second, "copiesPerSecond", 1, u32::MAX)?,
            queue: count(&budget.queue, "queue", 1, u32::MAX)?,
            queue_bytes,
            copy_bytes,
            shadow_timeout: at_least(&mirror.shadow_timeout, "shadowTimeout", Duration::from_millis(10))?,
            session: SessionKey::try_from(mirror.session)?,
            redact: redact(mirror.redact)?,
            routes: routes(mirror.routes)?,
        })
    }
}

fn sample_rate(scalar: &Scalar<Percent>, name: &str) -> Result<SampleRate, Refusal> {
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

fn redact(redact: crate::file::Redact) -> Result<RedactPolicy, Refusal> {
    for name in &redact.query {
        if name.value.0.is_empty() || name.value.0.contains(['&', '=', '#']) {
            let message = format!("expected the name of a query parameter, got `{}`", name.value.0);
            return Err(Refusal::new(message).at(name));
        }
    }
    Ok(RedactPolicy {
        headers: redact.headers.into_iter().map(|name| name.0.0).collect(),
        query: redact.query.into_iter().map(|name| name.value.0).collect(),
    })
}

fn routes(routes: Vec<crate::file::Route>) -> Result<Vec<RouteRule>, Refusal> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::with_capacity(routes.len());
    for route in routes {
        if !seen.insert(route.path.get().clone()) {
            let message = format!("duplicate route `{}`", route.path.get().0);
            return Err(Refusal::new(message).at(&route.path).help("keep one of them"));
        }
        rules.push(RouteRule { path: route.path.into_inner().0, mirror: route.mirror });
    }
    Ok(rules)
}
