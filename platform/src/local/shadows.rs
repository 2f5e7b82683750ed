//! Which lives have a shadow, and which are next.
//!
//! There may be fewer shadows than lives; then they take turns. A turn is the end of the shadow of the live that had one
//! longest: the next pass of supervision gives one to the live that has been without longest, as it would after any
//! other end. So there is one rule for who gets a shadow, and nothing that could disagree with it after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foreshadow_act::PlatformError;
use foreshadow_model::{InstanceId, NoShadow, NodeName, Resources, with_causes};
use tokio::time::Instant;

use super::member::Member;
use super::nodes::place;
use super::{Inner, Local};

/// How long after a shadow could not be made it is tried again.
const FAILED_PAUSE: Duration = Duration::from_secs(30);

/// How often room for a shadow is looked for.
const ROOM_PAUSE: Duration = Duration::from_secs(5);

/// What is known of the shadows that lives have not got, or had.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    lives: BTreeMap<InstanceId, Want>,
    /// How often no node had room.
    pub(crate) refused: u64,
}

#[derive(Debug, Default)]
struct Want {
    /// Where one is being made, and what it will take there.
    making: Option<(NodeName, Resources)>,
    /// Its turn is being ended.
    is_turning: bool,
    retry_at: Option<Instant>,
    why: Option<NoShadow>,
    /// Since when it has had a ready shadow.
    watched_since: Option<Instant>,
    /// When it last had a shadow.
    watched_last: Option<Instant>,
}

impl Wants {
    /// Why a live has no shadow; `None` while one is being made.
    pub(crate) fn why(&self, live: &InstanceId) -> Option<NoShadow> {
        self.lives.get(live).filter(|want| want.making.is_none())?.why.clone()
    }

    /// Forgets a pause after a shadow could not be made; one that is being made is let go on.
    pub(crate) fn retry_now(&mut self, live: &InstanceId) {
        if let Some(want) = self.lives.get_mut(live) {
            want.retry_at = None;
        }
    }
}

/// A live as the choice of the next turn sees it.
#[derive(Debug)]
struct Turn {
    live: InstanceId,
    /// How long it has had a ready shadow.
    watched_for: Option<Duration>,
    /// It is ready, has no shadow, and could have one.
    is_waiting: bool,
    is_kept: bool,
}

/// Whose shadow goes: that of the live watched longest, once it had its time and somebody waits, or if there are too
/// many.
fn next_turn(turns: &[Turn], period: Duration, is_surplus: bool) -> Option<&InstanceId> {
    let is_wanted = is_surplus || turns.iter().any(|turn| turn.is_waiting);
    let mut due: Vec<(Duration, &InstanceId)> = turns
        .iter()
        .filter(|turn| is_wanted && !turn.is_kept)
        .filter_map(|turn| Some((turn.watched_for?, &turn.live)))
        .filter(|(watched_for, _)| is_surplus || period <= *watched_for)
        .collect();
    due.sort();
    due.last().map(|(_, live)| *live)
}

/// Shadows for so many lives: a share of them, rounded up, so at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count, not negative"
)]
#[expect(clippy::cast_precision_loss, reason = "a handful of lives")]
fn quota(ratio: f64, lives: usize) -> usize {
    // A hair less, or 7 % of 100 would be 8 for the sake of the last bit.
    let share = (ratio * lives as f64 - 1e-9).ceil().max(0.0) as usize;
    share.min(lives)
}

impl Local {
    /// Lets shadows take turns where there are fewer of them than lives: ends the one whose live has had it longest,
    /// once that was `Settings::shadow_turn`, and the live that has been without longest gets one. Lives in `keep` keep
    /// theirs. Does nothing when nobody waits, so it may be called at any time; never waits itself.
    pub fn turn_shadows(&self, keep: &[InstanceId]) {
        let Some(live) = self.inner.begin_turn(keep) else { return };
        let inner = self.inner.clone();
        self.inner.tasks.spawn(async move {
            {
                let _change = inner.change.lock().await;
                inner.tell(&live.shadow_of(), "ended, it is the turn of another live".into());
                inner.end(&live.shadow_of(), Duration::ZERO).await;
            }
            if let Some(want) = inner.wants().lives.get_mut(&live) {
                want.is_turning = false;
            }
        });
    }
}

impl Inner {
    /// Whether there are shadows at all.
    pub(crate) fn are_shadows_wanted(&self) -> bool {
        0.0 < self.settings.shadow_ratio.get()
    }

    fn begin_turn(&self, keep: &[InstanceId]) -> Option<InstanceId> {
        let now = Instant::now();
        let members = self.members();
        let lives: Vec<&Member> = members.values().filter(|member| member.is_live()).collect();
        let quota = quota(self.settings.shadow_ratio.get(), lives.len());
        let mut wants = self.wants();
        if wants.lives.values().any(|want| want.is_turning || want.making.is_some()) {
            return None;
        }
        let shadows = lives.iter().filter(|live| members.contains_key(&live.id().shadow_of())).count();
        let turn = |live: &&Member| {
            let want = wants.lives.get(live.id());
            let has_shadow = members.contains_key(&live.id().shadow_of());
            let since = want.and_then(|want| want.watched_since).filter(|_| has_shadow);
            let may_try = want.is_none_or(|want| want.retry_at.is_none_or(|retry_at| retry_at <= now));
            Turn {
                live: live.id().clone(),
                watched_for: since.map(|since| now.duration_since(since)),
                is_waiting: !has_shadow && live.instance.is_ready() && may_try,
                is_kept: keep.contains(live.id()),
            }
        };
        let turns: Vec<Turn> = lives.iter().map(turn).collect();
        // While there is a shadow to spare, waiting is no matter of turns.
        let is_surplus = quota < shadows;
        if shadows < quota {
            return None;
        }
        let live = next_turn(&turns, self.settings.shadow_turn, is_surplus)?.clone();
        wants.lives.get_mut(&live)?.is_turning = true;
        Some(live)
    }

    /// Gives shadows to ready lives as far as they go, first to those that have been without longest.
    pub(crate) fn give_shadows(self: &Arc<Self>) {
        if !self.are_shadows_wanted() {
            return;
        }
        for (live, node) in self.choose() {
            let inner = self.clone();
            self.tasks.spawn(async move {
                let failed = inner.create_shadow(&live, &node).await.err();
                let why = failed.as_ref().map(|error| with_causes(error));
                if let Some(error) = &why {
                    tracing::warn!(error, live = %live, "No shadow could be made");
                    inner.tell(&live.shadow_of(), format!("could not be made: {error}"));
                }
                if let Some(want) = inner.wants().lives.get_mut(&live) {
                    want.making = None;
                    want.retry_at = why.as_ref().map(|_| Instant::now() + FAILED_PAUSE);
                    want.why = why.map(NoShadow::Failed);
                }
            });
        }
    }

    /// Which lives get a shadow now, and where; their room is promised from here on.
    fn choose(&self) -> Vec<(InstanceId, NodeName)> {
        let now = Instant::now();
        let members = self.members();
        let lives: Vec<&Member> = members.values().filter(|member| member.is_live()).collect();
        let quota = quota(self.settings.shadow_ratio.get(), lives.len());
        let mut wants = self.wants();
        let Wants { lives: by_live, refused } = &mut *wants;
        by_live.retain(|live, want| members.contains_key(live) || want.making.is_some());
        let (mut given, mut waiting) = (0, Vec::new());
        for live in &lives {
            let want = by_live.entry(live.id().clone()).or_default();
            match members.get(&live.id().shadow_of()) {
                Some(shadow) => {
                    given += 1;
                    want.watched_last = Some(now);
                    if shadow.instance.is_ready() {
                        want.watched_since.get_or_insert(now);
                    }
                }
                None if want.making.is_some() => given += 1,
                None => {
                    want.watched_since = None;
                    if live.instance.is_ready() {
                        waiting.push((want.watched_last, live.id().number(), *live));
                    }
                }
            }
        }
        waiting.sort_by_key(|(last, number, _)| (*last, *number));
        let lives = members.values().filter(|member| member.is_live());
        let with_lives: BTreeSet<NodeName> = lives.map(|live| live.instance.node.clone()).collect();
        let mut chosen = Vec::new();
        for (_, number, live) in waiting {
            let taken = if given < quota { self.promised(&members, by_live) } else { Vec::new() };
            let Some(want) = by_live.get_mut(live.id()) else { continue };
            if quota <= given {
                want.why = Some(NoShadow::Waiting);
                continue;
            }
            if want.retry_at.is_some_and(|at| now < at) {
                continue;
            }
            let needed = self.resources_owed(live);
            let rooms = self.rooms_on_nodes(&taken);
            match place(&live.instance.node, number.unwrap_or(1), needed, (&rooms, &with_lives)) {
                Ok(node) => {
                    given += 1;
                    want.making = Some((node.clone(), needed));
                    chosen.push((live.id().clone(), node));
                }
                Err(why) => {
                    *refused += 1;
                    want.retry_at = Some(now + ROOM_PAUSE);
                    // Once: it is looked for again and again.
                    if !matches!(want.why, Some(NoShadow::NoRoom(_))) {
                        tracing::warn!(live = %live.id(), why, "No room for a shadow");
                        self.tell(&live.id().shadow_of(), format!("not made: {why}"));
                    }
                    want.why = Some(NoShadow::NoRoom(why));
                }
            }
        }
        chosen
    }

    /// Limits that nodes have to meet: those in force, and those of shadows that are being made.
    fn promised(
        &self,
        members: &BTreeMap<InstanceId, Member>,
        wants: &BTreeMap<InstanceId, Want>,
    ) -> Vec<(NodeName, Resources)> {
        let there =
            members.values().map(|member| (member.instance.node.clone(), self.resources_in_force(member)));
        let not_there_yet = wants.iter().filter(|(live, _)| !members.contains_key(&live.shadow_of()));
        there.chain(not_there_yet.filter_map(|(_, want)| want.making.clone())).collect()
    }

    async fn create_shadow(
        self: &Arc<Self>,
        live: &InstanceId,
        node: &NodeName,
    ) -> Result<(), PlatformError> {
        let found =
            self.members().get(live).map(|member| (self.resources_owed(member), member.recipe.clone()));
        let (Some((resources, recipe)), Some(node)) = (found, self.node(node)) else {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        };
        let id = live.shadow_of();
        let made = async {
            let (mut member, room) = self.make_shadow(&id, node, resources, recipe).await?;
            self.seed(live, &mut member, room.as_ref()).await;
            let seeded = room.as_ref().filter(|_| member.launch.seed.is_some());
            let seeded = seeded.map(|room| (room.folder.clone(), room.cancel.clone()));
            self.launch(member, room, Some(live)).await?;
            if let Some((folder, ends)) = seeded {
                self.tasks.spawn(self.clone().finish_seed(id.clone(), folder, ends));
            }
            Ok(())
        };
        self.reserved_for(&id, made).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: u32, watched_for: Option<u64>, is_waiting: bool, is_kept: bool) -> Turn {
        let watched_for = watched_for.map(Duration::from_secs);
        Turn { live: InstanceId::live(number), watched_for, is_waiting, is_kept }
    }

    const PERIOD: Duration = Duration::from_secs(600);

    #[test]
    fn the_longest_watched_gives_way_once_it_had_its_time_and_somebody_waits() {
        let turns = [turn(1, Some(700), false, false), turn(2, Some(900), false, false)];
        assert_eq!(next_turn(&turns, PERIOD, false), None, "nobody waits");
        let [first, second] = turns;
        let turns = [first, second, turn(3, None, true, false)];
        assert_eq!(next_turn(&turns, PERIOD, false), Some(&InstanceId::live(2)));
        assert_eq!(next_turn(&turns, PERIOD * 2, false), None, "too early");
        assert_eq!(next_turn(&turns, PERIOD * 2, true), Some(&InstanceId::live(2)), "one too many");
    }

    #[test]
    fn what_is_kept_keeps_its_shadow_and_the_next_one_gives_way() {
        let waiting = || turn(3, None, true, false);
        let turns = [turn(1, Some(700), false, false), turn(2, Some(900), false, true), waiting()];
        assert_eq!(next_turn(&turns, PERIOD, false), Some(&InstanceId::live(1)));
        let turns = [turn(1, Some(5), false, false), turn(2, Some(900), false, true), waiting()];
        assert_eq!(next_turn(&turns, PERIOD, false), None);
    }

    #[test]
    fn a_share_of_shadows_is_rounded_up() {
        assert_eq!(
            [(0.5, 3), (0.01, 4), (0.07, 100), (1.0, 4), (0.3, 10), (0.0, 5), (0.5, 0)]
                .map(|(ratio, lives)| quota(ratio, lives)),
            [2, 1, 7, 4, 3, 0, 0]
        );
    }
}
