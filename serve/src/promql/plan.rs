//! A question taken apart: what can be computed, or which part of it cannot.

use std::time::Duration;

use promql_parser::label::Matcher;
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, MatrixSelector, Offset,
    VectorMatchCardinality, VectorSelector,
};

use super::series::Matchers;
use super::{NAME, QueryError};

/// Selectors of one question.
const SELECTORS_MAX: usize = 16;

/// Regular expressions of one question.
const EXPRESSIONS_MAX: usize = 8;

/// Bytes of a question, at most: those of dashboards have some hundreds.
const BYTES_MAX: usize = 4096;

/// How deep a question may be nested.
const DEPTH_MAX: usize = 48;

/// A window or an offset, at most: a hundred years.
const SPAN_MAX: Duration = Duration::from_secs(36_500 * 24 * 3600);

/// What is computed of the samples of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Rate,
    Increase,
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Last,
    Quantile(f64),
}

/// How series become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
}

/// Which labels of the series that become one are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grouping {
    By(Vec<String>),
    Without(Vec<String>),
}

/// What is done with two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

impl Operator {
    pub(crate) const fn is_comparison(self) -> bool {
        !matches!(
            self,
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide | Self::Modulo | Self::Power
        )
    }
}

/// Which series, and how long ago.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) matchers: Matchers,
    /// In milliseconds, positive into the past.
    pub(crate) offset: i64,
}

/// What is to be computed.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    Number(f64),
    Latest(Selector),
    Window { function: Function, of: Selector, window: i64 },
    Aggregate { how: Aggregation, grouping: Grouping, of: Box<Plan> },
    Binary { operator: Operator, is_bool: bool, left: Box<Plan>, right: Box<Plan> },
    Negative(Box<Plan>),
}

impl Plan {
    /// Whether it gives one number a moment, and no series.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Latest(_) | Self::Window { .. } | Self::Aggregate { .. } => false,
            Self::Binary { left, right, .. } => left.is_scalar() && right.is_scalar(),
            Self::Negative(of) => of.is_scalar(),
        }
    }
}

/// Takes a question apart.
pub(crate) fn plan(text: &str) -> Result<Plan, QueryError> {
    bounded(std::iter::once(text))?;
    of(&parsed(text)?, 0)
}

/// The selectors of `match[]`.
pub(crate) fn selectors<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Matchers>, QueryError> {
    let texts: Vec<&str> = texts.collect();
    if SELECTORS_MAX < texts.len() {
        return Err(bad(format!("expected at most {SELECTORS_MAX} selectors, got {}", texts.len())));
    }
    bounded(texts.iter().copied())?;
    let one = |text: &str| match parsed(text)? {
        Expr::VectorSelector(vector) => Ok(selector(&vector)?.matchers),
        _ => Err(bad(format!("expected a selector such as `{{role=\"live\"}}`, got `{text}`"))),
    };
    texts.into_iter().map(one).collect()
}

/// Regular expressions are compiled where they are read, and each may take megabytes.
fn bounded<'a>(texts: impl Iterator<Item = &'a str>) -> Result<(), QueryError> {
    let count = |text: &str| text.matches("=~").count() + text.matches("!~").count();
    let expressions: usize = texts.map(count).sum();
    if EXPRESSIONS_MAX < expressions {
        return Err(bad(format!(
            "expected at most {EXPRESSIONS_MAX} regular expressions, got {expressions}"
        )));
    }
    Ok(())
}

fn bad(message: impl Into<String>) -> QueryError {
    QueryError::Bad(message.into())
}

fn unsupported(what: impl std::fmt::Display) -> QueryError {
    bad(format!(
        "{what} is not supported by foreshadow: ask a Prometheus that it writes to (`store.remoteWrite`)"
    ))
}

fn parsed(text: &str) -> Result<Expr, QueryError> {
    if BYTES_MAX < text.len() {
        return Err(bad(format!("expected a query of at most {BYTES_MAX} bytes, got {}", text.len())));
    }
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if DEPTH_MAX < depth {
            return Err(bad(format!("expected a query nested at most {DEPTH_MAX} deep")));
        }
    }
    parser::parse(text).map_err(|why| bad(format!("cannot parse the query: {why}")))
}

fn of(expr: &Expr, depth: usize) -> Result<Plan, QueryError> {
    if DEPTH_MAX < depth {
        return Err(bad(format!("expected a query nested at most {DEPTH_MAX} deep")));
    }
    let within = |inner: &Expr| of(inner, depth + 1);
    match expr {
        Expr::NumberLiteral(number) => Ok(Plan::Number(number.val)),
        Expr::Paren(paren) => within(&paren.expr),
        Expr::Unary(unary) => Ok(Plan::Negative(Box::new(within(&unary.expr)?))),
        Expr::VectorSelector(vector) => selector(vector).map(Plan::Latest),
        Expr::Aggregate(aggregate) => {
            let (how, grouping) = aggregation(aggregate)?;
            let of = within(&aggregate.expr)?;
            if of.is_scalar() {
                return Err(bad(format!("expected a vector in `{}`, got a number", aggregate.op)));
            }
            Ok(Plan::Aggregate { how, grouping, of: Box::new(of) })
        }
        Expr::Binary(binary) => {
            let (operator, is_bool) = operation(binary)?;
            let (left, right) = (within(&binary.lhs)?, within(&binary.rhs)?);
            Ok(Plan::Binary { operator, is_bool, left: Box::new(left), right: Box::new(right) })
        }
        Expr::Call(call) => function(call),
        Expr::Subquery(_) => Err(unsupported("a subquery")),
        Expr::StringLiteral(_) => Err(unsupported("a text as a query")),
        Expr::MatrixSelector(_) => Err(unsupported("a range without a function")),
        Expr::Extension(_) => Err(unsupported("an extension of PromQL")),
    }
}

fn selector(vector: &VectorSelector) -> Result<Selector, QueryError> {
    if vector.at.is_some() {
        return Err(unsupported("the modifier `@`"));
    }
    if !vector.matchers.or_matchers.is_empty() {
        return Err(unsupported("`or` between matchers"));
    }
    let offset = match &vector.offset {
        None => 0,
        Some(Offset::Pos(span)) => millis(*span)?,
        Some(Offset::Neg(span)) => -millis(*span)?,
    };
    let mut all = vector.matchers.matchers.clone();
    if let Some(name) = &vector.name {
        all.push(Matcher::new(promql_parser::label::MatchOp::Equal, NAME, name));
    }
    Ok(Selector { matchers: Matchers(all), offset })
}

fn millis(span: Duration) -> Result<i64, QueryError> {
    let ms =
        Some(span).filter(|span| *span <= SPAN_MAX).and_then(|span| i64::try_from(span.as_millis()).ok());
    ms.ok_or_else(|| bad("expected a span of at most a hundred years"))
}

fn aggregation(aggregate: &AggregateExpr) -> Result<(Aggregation, Grouping), QueryError> {
    let name = aggregate.op.to_string();
    let how = match name.as_str() {
        "sum" => Aggregation::Sum,
        "avg" => Aggregation::Avg,
        "min" => Aggregation::Min,
        "max" => Aggregation::Max,
        "count" => Aggregation::Count,
        _ => return Err(unsupported(format!("the aggregation `{name}`"))),
    };
    let grouping = match &aggregate.modifier {
        None => Grouping::By(Vec::new()),
        Some(LabelModifier::Include(labels)) => Grouping::By(labels.labels.clone()),
        Some(LabelModifier::Exclude(labels)) => Grouping::Without(labels.labels.clone()),
    };
    Ok((how, grouping))
}

fn operation(binary: &BinaryExpr) -> Result<(Operator, bool), QueryError> {
    let name = binary.op.to_string();
    let operator = match name.as_str() {
        "+" => Operator::Add,
        "-" => Operator::Subtract,
        "*" => Operator::Multiply,
        "/" => Operator::Divide,
        "%" => Operator::Modulo,
        "^" => Operator::Power,
        "==" => Operator::Equal,
        "!=" => Operator::NotEqual,
        "<" => Operator::Less,
        ">" => Operator::Greater,
        "<=" => Operator::LessOrEqual,
        ">=" => Operator::GreaterOrEqual,
        _ => return Err(unsupported(format!("the operator `{name}`"))),
    };
    let Some(modifier) = &binary.modifier else { return Ok((operator, false)) };
    if modifier.matching.is_some() || modifier.card != VectorMatchCardinality::OneToOne {
        return Err(unsupported("matching of vectors by `on`, `ignoring` or `group_left`"));
    }
    if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
        return Err(unsupported("`fill` between vectors"));
    }
    Ok((operator, modifier.return_bool))
}

fn function(call: &Call) -> Result<Plan, QueryError> {
    let name = call.func.name;
    let mut arguments = call.args.args.iter().map(|argument| bare(argument));
    let function = match name {
        "rate" => Function::Rate,
        "increase" => Function::Increase,
        "avg_over_time" => Function::Avg,
        "min_over_time" => Function::Min,
        "max_over_time" => Function::Max,
        "sum_over_time" => Function::Sum,
        "count_over_time" => Function::Count,
        "last_over_time" => Function::Last,
        "quantile_over_time" => match arguments.next() {
            Some(Expr::NumberLiteral(number)) => Function::Quantile(number.val),
            _ => return Err(unsupported("a quantile that is no number")),
        },
        _ => return Err(unsupported(format!("the function `{name}`"))),
    };
    match (arguments.next(), arguments.next()) {
        (Some(Expr::MatrixSelector(MatrixSelector { vs, range })), None) => {
            Ok(Plan::Window { function, of: selector(vs)?, window: millis(*range)?.max(1) })
        }
        (Some(Expr::Subquery(_)), _) => Err(unsupported("a subquery")),
        _ => Err(bad(format!("expected one range such as `{name}(x[5m])`"))),
    }
}

/// What is in the parentheses.
fn bare(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}
