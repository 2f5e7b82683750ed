//! Many series for other programs, one after the other: however long the history is, one series is in memory.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

use foreshadow_engine::model::Exported;
use foreshadow_engine::{Reader, RollUp, SeriesKey};

use crate::failure::Failure;

/// What of each series.
pub(super) struct Part {
    /// From the first moment to before the last one, in Unix milliseconds.
    pub(super) range: (i64, i64),
    /// One value each step; `None` is every sample.
    pub(super) step_ms: Option<i64>,
}

impl Part {
    fn samples(&self, reader: &Reader, key: &SeriesKey) -> Result<Vec<(i64, f64)>, Failure> {
        let (from, to) = self.range;
        if self.step_ms.is_some() {
            return Ok(self.steps(reader, key)?.iter().map(|step| (step.unix_ms, step.mean())).collect());
        }
        reader.series(key, from, to).map_err(|error| Failure::new(&error))
    }

    fn steps(&self, reader: &Reader, key: &SeriesKey) -> Result<Vec<RollUp>, Failure> {
        let step_ms = self.step_ms.unwrap_or(1);
        reader.steps(key, self.range, step_ms).map_err(|error| Failure::new(&error))
    }
}

/// One row a value, in the units of the history; with a step, all that is known of it.
pub(super) fn csv(
    out: &mut impl Write,
    reader: &Reader,
    keys: &[&SeriesKey],
    part: &Part,
) -> Result<(), Failure> {
    let out = &mut BufWriter::new(out);
    let values = if part.step_ms.is_some() { "n,min,max,mean,last" } else { "value" };
    writeln!(out, "unix_ms,instance,role,metric,unit,{values}")?;
    for &key in keys {
        let SeriesKey { instance, role, metric, unit } = key;
        let names = format!("{instance},{},{metric},{unit}", role.label());
        if part.step_ms.is_some() {
            for step in part.steps(reader, key)? {
                let RollUp { unix_ms, n, min, max, last, .. } = step;
                writeln!(out, "{unix_ms},{names},{n},{min},{max},{},{last}", step.mean())?;
            }
        } else {
            for (moment, value) in part.samples(reader, key)? {
                writeln!(out, "{moment},{names},{value}")?;
            }
        }
    }
    Ok(out.flush()?)
}

/// OpenMetrics with a timestamp for each value; of a step the mean, at its begin.
pub(super) fn openmetrics(
    out: &mut impl Write,
    reader: &Reader,
    keys: &[&SeriesKey],
    part: &Part,
    service: Option<&str>,
) -> Result<(), Failure> {
    let out = &mut BufWriter::new(out);
    let mut families: BTreeMap<String, Vec<(&SeriesKey, Exported)>> = BTreeMap::new();
    for &key in keys {
        let exported = Exported::of(&key.metric, &key.unit);
        families.entry(exported.name.clone()).or_default().push((key, exported));
    }
    let service = service.map(|service| format!(",service=\"{service}\"")).unwrap_or_default();
    for (name, members) in families {
        writeln!(out, "# TYPE {name} gauge")?;
        if let Some(unit) = members.first().and_then(|(_, exported)| exported.unit) {
            writeln!(out, "# UNIT {name} {unit}")?;
        }
        for (key, exported) in members {
            let labels = format!("instance=\"{}\",role=\"{}\"{service}", key.instance, key.role.label());
            for (moment, value) in part.samples(reader, key)? {
                let value = number(exported.value(value));
                let (seconds, ms) = (moment.div_euclid(1000), moment.rem_euclid(1000));
                writeln!(out, "{name}{{{labels}}} {value} {seconds}.{ms:03}")?;
            }
        }
    }
    writeln!(out, "# EOF")?;
    Ok(out.flush()?)
}

/// As OpenMetrics writes it.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value < 0.0 { "-Inf".into() } else { "+Inf".into() };
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_openmetrics_reads_them() {
        assert_eq!(
            [0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(number),
            ["0.5", "+Inf", "-Inf", "NaN"]
        );
    }
}
