//! What a series of the history is called where Prometheus' names are spoken: the read API, the export, remote write.
//!
//! `latency_p99` in `ms` becomes `foreshadow_latency_p99_seconds`, its values divided by 1000. Labels are `service`,
//! `instance` and `role`. Nothing is ever renamed: dashboards are built on it.

use crate::Role;

/// A name in base units, and what values are divided by to be in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// `foreshadow_latency_p99_seconds`.
    pub name: String,
    /// The base unit at the end of the name, where OpenMetrics knows it: `seconds`, `bytes`.
    pub unit: Option<&'static str>,
    divisor: f64,
}

impl Exported {
    /// The name of a metric that is kept in this unit.
    #[must_use]
    pub fn of(metric: &str, unit: &str) -> Self {
        let (suffix, unit, divisor) = match unit {
            "1" | "" => ("", None, 1.0),
            "1/s" => ("_per_second", None, 1.0),
            "ms" => ("_seconds", Some("seconds"), 1000.0),
            "s" => ("_seconds", Some("seconds"), 1.0),
            "bytes" => ("_bytes", Some("bytes"), 1.0),
            "cores" => ("_cores", None, 1.0),
            "bytes/s" => ("_bytes_per_second", None, 1.0),
            other => {
                let name = plain(&format!("foreshadow_{metric}_{}", other.replace('/', "_per_")));
                return Self { name, unit: None, divisor: 1.0 };
            }
        };
        Self { name: plain(&format!("foreshadow_{metric}{suffix}")), unit, divisor }
    }

    /// A value in the base unit. Divided, since that gives the double nearest to the decimal.
    #[must_use]
    pub fn value(&self, kept: f64) -> f64 {
        kept / self.divisor
    }
}

impl Role {
    /// The word that stands for it, in files and labels.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Shadow => "shadow",
        }
    }
}

/// Only what a name may hold.
fn plain(name: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_base_unit_and_values_are_in_it() {
        let name = |metric, unit| Exported::of(metric, unit).name;
        assert_eq!(name("latency_p99", "ms"), "foreshadow_latency_p99_seconds");
        assert_eq!(name("requests", "1/s"), "foreshadow_requests_per_second");
        assert_eq!(name("sample_rate", "1"), "foreshadow_sample_rate");
        assert_eq!(name("memory_changed", "bytes/s"), "foreshadow_memory_changed_bytes_per_second");
        assert_eq!(name("storage-read", "s"), "foreshadow_storage_read_seconds");
        assert_eq!(name("odd", "furlong/h"), "foreshadow_odd_furlong_per_h");
        assert_eq!(Exported::of("latency_p99", "ms").value(20.34), 0.020_34);
        assert_eq!(Exported::of("cpu", "cores").value(0.3), 0.3);
    }
}
