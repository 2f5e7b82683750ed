//! `shadow.egress`: what a shadow may connect to.

use std::borrow::Cow;
use std::fmt;

use foreshadow_model::EgressTarget;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::notation::{As, Notation};

/// What a shadow may connect to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Egress {
    /// Hosts with their port. Default: nothing, because a shadow touches nothing that users can see.
    pub(crate) allow: Vec<Allowed>,
}

/// A host with its port; where more must be said of it, in a block.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Allowed {
    pub(crate) target: As<EgressTarget>,
    pub(crate) amplify: Amplify,
}

/// Whether a target stands many times the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Amplify {
    /// Nobody knows, and live may hang on it: while it can be reached, nothing is sent again.
    #[default]
    Never,
    /// It does, and nothing of live hangs on it.
    Safe,
}

/// The block.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Block {
    /// The host with its port.
    target: As<EgressTarget>,
    /// Whether it stands many times the load, as when the knee of a live is looked for. Default `never`: live's own
    /// database may hang there.
    #[serde(default)]
    amplify: Amplify,
}

struct AllowedVisitor;

impl<'de> Visitor<'de> for AllowedVisitor {
    type Value = Allowed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EgressTarget::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Allowed, E> {
        let target = EgressTarget::read(text).map(As);
        let refusal = || E::custom(format!("expected {}, got `{text}`", EgressTarget::EXPECTED));
        Ok(Allowed { target: target.ok_or_else(refusal)?, amplify: Amplify::Never })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Allowed, A::Error> {
        let Block { target, amplify } = Block::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Allowed { target, amplify })
    }
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowedVisitor)
    }
}

impl JsonSchema for Allowed {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Allowed".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (text, block) = (As::<EgressTarget>::json_schema(generator), Block::json_schema(generator));
        json_schema!({ "anyOf": [text, block] })
    }
}
