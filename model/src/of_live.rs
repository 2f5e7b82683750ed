//! What is listed once for each live.

use crate::{Assessment, InstanceId, Pair, Window, wire::UpstreamSummary};

/// Says of which live it is.
pub trait OfLive {
    /// The live's name.
    fn live(&self) -> &InstanceId;
}

impl OfLive for Pair {
    fn live(&self) -> &InstanceId {
        &self.live.id
    }
}

impl OfLive for Window {
    fn live(&self) -> &InstanceId {
        &self.live
    }
}

impl OfLive for Assessment {
    fn live(&self) -> &InstanceId {
        &self.live
    }
}

impl OfLive for UpstreamSummary {
    fn live(&self) -> &InstanceId {
        &self.live
    }
}

/// What is listed for `live`; `None` where nothing is.
///
/// Fast where the list is in the order of the names, as those of a tick are: it is asked for once for each of a thousand
/// lives. In any other order it is found all the same.
#[must_use]
pub fn of_live<'a, T: OfLive>(all: &'a [T], live: &InstanceId) -> Option<&'a T> {
    match all.binary_search_by(|one| one.live().cmp(live)) {
        Ok(at) => all.get(at),
        Err(_) => all.iter().find(|one| one.live() == live),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tick;

    #[test]
    fn it_is_found_in_any_order_and_nobody_else() {
        let window = |number| Window::unreported(Tick(1), InstanceId::live(number), 1.0);
        // As strings, 10 and 11 are before 2.
        let by_number: Vec<Window> = (1..=30).map(window).collect();
        let mut by_name = by_number.clone();
        by_name.sort_by(|a, b| a.live.cmp(&b.live));
        for all in [by_number, by_name] {
            for number in 1..=30 {
                let found = of_live(&all, &InstanceId::live(number));
                assert_eq!(found.map(|window| &window.live), Some(&InstanceId::live(number)));
            }
            assert_eq!(of_live(&all, &InstanceId::live(31)), None);
        }
    }
}
