//! How far the answers of a live and its shadow agree.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Routes that are counted by name; the rest is `other`.
pub const ROUTES_MAX: usize = 50;

/// Fields of all routes that are counted by name, likewise.
pub const FIELDS_MAX: usize = 400;

/// How far the two answers to one request agreed, over the paired samples of a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Agreement {
    /// Both answered with the same status class; only these count for the paired centre.
    pub same: u64,
    /// Live failed (5xx or no answer), the shadow did not.
    pub live_error_only: u64,
    /// The shadow failed, live did not.
    pub shadow_error_only: u64,
    /// Different classes and neither failed: live 200, shadow 302. Comparing these would flatter one side.
    pub diverging: u64,
    /// Diverging answers by route; bounded, the rest under `other`.
    pub diverging_routes: BTreeMap<String, u64>,
    /// How far bodies agreed, by route; bounded likewise. Empty where they are not compared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bodies: BTreeMap<String, BodyAgreement>,
    /// The same of fields of JSON, by route and place, such as `GET /cart $.total`; bounded likewise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, BodyAgreement>,
}

/// Pairs of bodies that are remembered in full. Of more, the older ones count for less.
const COMPARED_MAX: u64 = 1000;

/// How far the bodies of answers to one route agreed. What differs between two lives as well is noise: a date, an id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BodyAgreement {
    /// Pairs of answers with the same status class.
    pub compared: u64,
    /// Those whose bodies differed.
    pub differing: u64,
    /// Answers of two lives to the same target.
    pub lives_compared: u64,
    /// Those whose bodies differed.
    pub lives_differing: u64,
}

impl BodyAgreement {
    /// The share of pairs that differ, 0 to 1; `None` without pairs.
    #[must_use]
    pub fn differing_share(&self) -> Option<f64> {
        share(self.differing, self.compared)
    }

    /// The share of pairs that differ beyond what two lives do, 0 to 1; `None` while nothing can be said: without pairs, or
    /// without two lives to tell the noise.
    #[must_use]
    pub fn beyond_noise(&self) -> Option<f64> {
        let noise = share(self.lives_differing, self.lives_compared)?;
        Some((self.differing_share()? - noise).max(0.0))
    }

    /// Halves what was counted, once it is much: what is counted from now on shall show.
    pub fn fade(&mut self) {
        if COMPARED_MAX < self.compared.max(self.lives_compared) {
            for count in
                [&mut self.compared, &mut self.differing, &mut self.lives_compared, &mut self.lives_differing]
            {
                *count /= 2;
            }
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.compared += other.compared;
        self.differing += other.differing;
        self.lives_compared += other.lives_compared;
        self.lives_differing += other.lives_differing;
    }
}

impl Agreement {
    /// All paired samples.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.same + self.live_error_only + self.shadow_error_only + self.diverging
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.same += other.same;
        self.live_error_only += other.live_error_only;
        self.shadow_error_only += other.shadow_error_only;
        self.diverging += other.diverging;
        for (route, n) in &other.diverging_routes {
            *by_name(&mut self.diverging_routes, route, ROUTES_MAX) += n;
        }
        for (route, bodies) in &other.bodies {
            by_name(&mut self.bodies, route, ROUTES_MAX).merge(bodies);
        }
        for (field, agreement) in &other.fields {
            by_name(&mut self.fields, field, FIELDS_MAX).merge(agreement);
        }
    }

    /// Lets go of a part of what was counted of bodies long ago; to be called now and then.
    pub fn fade(&mut self) {
        self.bodies.values_mut().chain(self.fields.values_mut()).for_each(BodyAgreement::fade);
    }

    /// Fields that differ more often than those of two lives do, and routes whose bodies do and have no such field; the most
    /// different first, a few of them.
    #[must_use]
    pub fn differing(&self) -> Vec<Difference> {
        const SHOWN_MAX: usize = 3;
        let is_alone = self.bodies.values().all(|bodies| bodies.lives_compared == 0);
        let mut all = noticed(&self.fields, is_alone);
        let mut routes = noticed(&self.bodies, is_alone);
        let is_of =
            |field: &str, route: &str| field.strip_prefix(route).is_some_and(|rest| rest.starts_with(" $"));
        routes.retain(|route| !all.iter().any(|field| is_of(&field.place, &route.place)));
        all.extend(routes);
        all.sort_by(|a, b| b.share.total_cmp(&a.share));
        all.truncate(SHOWN_MAX);
        all
    }
}

/// A place at which live and shadow answer differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Difference {
    /// A route, or a field of the JSON that it answers: `GET /cart $.total`.
    pub place: String,
    /// In how many pairs, 0 to 1; beyond what two lives differ by, where there are two to tell.
    pub share: f64,
}

/// What differs so often that it is worth a word. With one live alone nothing can be told from noise: shown as it is. With
/// several, what no two of them answered says nothing.
fn noticed(counted: &BTreeMap<String, BodyAgreement>, is_alone: bool) -> Vec<Difference> {
    const SHARE_MIN: f64 = 0.05;
    const COMPARED_MIN: u64 = 5;
    let share = |bodies: &BodyAgreement| {
        let is_enough =
            COMPARED_MIN <= bodies.compared && (is_alone || COMPARED_MIN <= bodies.lives_compared);
        let share = if is_alone { bodies.differing_share() } else { bodies.beyond_noise() };
        share.filter(|share| is_enough && SHARE_MIN < *share)
    };
    let all = counted.iter();
    all.filter_map(|(place, bodies)| Some(Difference { place: place.clone(), share: share(bodies)? }))
        .collect()
}

/// What is counted under a name; of one name too many, what is counted under all others.
pub fn by_name<'a, T: Default>(counts: &'a mut BTreeMap<String, T>, name: &str, most: usize) -> &'a mut T {
    let known = counts.contains_key(name) || counts.len() < most;
    counts.entry(if known { name.to_owned() } else { "other".to_owned() }).or_default()
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run")]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole != 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(compared: u64, differing: u64, lives_compared: u64, lives_differing: u64) -> BodyAgreement {
        BodyAgreement { compared, differing, lives_compared, lives_differing }
    }

    fn named<const N: usize>(counts: [(&str, BodyAgreement); N]) -> BTreeMap<String, BodyAgreement> {
        counts.map(|(name, counts)| (name.to_owned(), counts)).into()
    }

    #[test]
    fn what_two_lives_differ_by_is_noise_and_a_route_is_told_by_its_fields() {
        let agreement = Agreement {
            bodies: named([
                ("GET /cart", bodies(100, 100, 50, 50)),
                ("GET /home", bodies(100, 30, 50, 1)),
                ("GET /rare", bodies(3, 3, 50, 0)),
            ]),
            fields: named([
                ("GET /cart $.date", bodies(100, 100, 50, 50)),
                ("GET /cart $.total", bodies(100, 12, 50, 0)),
            ]),
            ..Agreement::default()
        };
        let said: Vec<_> = agreement.differing().into_iter().map(|said| (said.place, said.share)).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!((said[0].0.as_str(), said[1].0.as_str()), ("GET /home", "GET /cart $.total"));
        assert!((said[0].1 - 0.28).abs() < 1e-9 && (said[1].1 - 0.12).abs() < 1e-9, "{said:?}");
    }

    #[test]
    fn what_a_deploy_mended_is_soon_forgotten_and_what_it_broke_soon_seen() {
        let of = |differing| Agreement {
            bodies: named([("GET /", bodies(10, differing, 10, 0))]),
            ..Agreement::default()
        };
        let mut sum = Agreement::default();
        let mut seen_after = |differing, is_seen: bool| {
            (0..)
                .find(|_| {
                    sum.merge(&of(differing));
                    sum.fade();
                    sum.differing().is_empty() != is_seen
                })
                .unwrap()
        };
        for _ in 0..3 {
            assert!(seen_after(0, false) < 500);
            assert!(seen_after(10, true) < 20);
        }
    }

    #[test]
    fn sums_of_many_ticks_name_no_more_than_one_tick_may() {
        let mut sum = Agreement::default();
        for tick in 0..100 {
            let mut seen = Agreement::default();
            for n in 0..20 {
                let name = format!("GET /{tick}/{n}");
                seen.diverging_routes.insert(name.clone(), 1);
                seen.bodies.insert(name.clone(), bodies(1, 1, 0, 0));
                seen.fields.insert(name, bodies(1, 1, 0, 0));
            }
            sum.merge(&seen);
        }
        assert_eq!(sum.diverging_routes.values().sum::<u64>(), 2000);
        assert_eq!((sum.diverging_routes.len(), sum.bodies.len()), (ROUTES_MAX + 1, ROUTES_MAX + 1));
        assert_eq!(sum.fields.len(), FIELDS_MAX + 1);
    }
}
