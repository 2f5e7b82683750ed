//! A batch as it goes over the wire: protobuf, then snappy (`prometheus.WriteRequest`, version 1).

use foreshadow_model::Exported;
use prost::Message;

use crate::records::{Backlog, SeriesRow};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Unix milliseconds.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// What is sent at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) samples: u64,
    pub(super) body: Vec<u8>,
}

/// Puts samples into words.
pub(super) fn batch(backlog: &Backlog, service: &str) -> Batch {
    let timeseries: Vec<TimeSeries> =
        backlog.series.iter().map(|(series, samples)| one(series, samples, service)).collect();
    let samples = timeseries.iter().map(|series| series.samples.len() as u64).sum();
    let plain = WriteRequest { timeseries }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&plain).expect("a batch is far smaller than 4 GiB");
    Batch { samples, body }
}

fn one(series: &SeriesRow, samples: &[(i64, f64)], service: &str) -> TimeSeries {
    let exported = Exported::of(&series.metric, &series.unit);
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    // Sorted by name, as the protocol demands.
    let labels = vec![
        label("__name__", &exported.name),
        label("instance", series.instance.as_str()),
        label("role", series.role.label()),
        label("service", service),
    ];
    let sample = |&(timestamp, value): &(i64, f64)| Sample { value: exported.value(value), timestamp };
    TimeSeries { labels, samples: samples.iter().map(sample).collect() }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{InstanceId, Role};

    use super::*;

    #[test]
    fn a_batch_is_what_a_receiver_reads() {
        let series = SeriesRow {
            instance: InstanceId::live(1),
            role: Role::Live,
            metric: "latency_p99".into(),
            unit: "ms".into(),
        };
        let backlog = Backlog { until: 6, series: vec![(series, vec![(5, 20.0), (6, 30.0)])] };
        let Batch { samples, body } = batch(&backlog, "shop");
        assert_eq!(samples, 2);
        let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let request = WriteRequest::decode(&plain[..]).unwrap();
        let names: Vec<&str> = request.timeseries[0].labels.iter().map(|label| label.name.as_str()).collect();
        assert_eq!(names, ["__name__", "instance", "role", "service"]);
        assert!(names.is_sorted());
        assert_eq!(request.timeseries[0].labels[0].value, "foreshadow_latency_p99_seconds");
        assert_eq!(request.timeseries[0].samples[1], Sample { value: 0.03, timestamp: 6 });
    }
}
