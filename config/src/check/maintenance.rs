//! The rules of the times in which nothing is done.

use std::time::Duration;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::within;
use crate::error::Refusal;
use crate::file;
use crate::maintenance::Maintenance;

const WEEK: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

pub(super) fn maintenance(window: &file::Maintenance) -> Result<Maintenance, Refusal> {
    let name = window.zone.value.0.as_str();
    let zone = TimeZone::get(name).map_err(|_unknown| {
        Refusal::new(format!("expected a time zone such as `Europe/Berlin` or `UTC`, got `{name}`"))
            .at(&window.zone)
    })?;
    let days = match &window.days {
        None => WEEK.to_vec(),
        Some(days) if days.value.is_empty() => {
            return Err(Refusal::new("expected at least one day, got none")
                .at(days)
                .help("remove `days` for every day of the week"));
        }
        Some(days) => days.value.iter().map(|&day| weekday(day)).collect(),
    };
    let (least, most) = (Duration::from_secs(60), Duration::from_secs(7 * 24 * 60 * 60));
    Ok(Maintenance {
        days,
        from: window.from.get().0,
        lasts: within(&window.lasts, "lasts", least, most)?,
        zone,
    })
}

const fn weekday(day: file::Day) -> Weekday {
    match day {
        file::Day::Mon => Weekday::Monday,
        file::Day::Tue => Weekday::Tuesday,
        file::Day::Wed => Weekday::Wednesday,
        file::Day::Thu => Weekday::Thursday,
        file::Day::Fri => Weekday::Friday,
        file::Day::Sat => Weekday::Saturday,
        file::Day::Sun => Weekday::Sunday,
    }
}
