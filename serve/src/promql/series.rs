//! Labels, and which series they pick.

use std::collections::BTreeMap;

use promql_parser::label::Matcher;

/// Names and values, the name of the metric among them.
pub(crate) type Labels = BTreeMap<String, String>;

/// All of these have to fit. A label that is not there counts as an empty text.
#[derive(Clone, Debug)]
pub(crate) struct Matchers(pub(super) Vec<Matcher>);

impl Matchers {
    pub(crate) fn fit(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| matcher.is_match(labels.get(&matcher.name).map_or("", String::as_str)))
    }
}

/// A series of an answer: a value at each moment of the grid, or none.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) labels: Labels,
    pub(super) values: Vec<Option<f64>>,
}
