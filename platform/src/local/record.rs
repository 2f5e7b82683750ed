//! What is written down so that a later controller finds lives again and orphans are ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use foreshadow_model::{Instance, InstanceId};
use serde::{Deserialize, Serialize};

use super::member::ProcessMark;

/// Version of the file's shape.
const FORMAT: u32 = 1;

/// Every instance with its process.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    pub(crate) instances: BTreeMap<InstanceId, Recorded>,
}

/// One instance with its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Recorded {
    pub(crate) instance: Instance,
    pub(crate) process: Option<ProcessMark>,
}

impl Record {
    pub(crate) fn new(instances: BTreeMap<InstanceId, Recorded>) -> Self {
        Self { format: FORMAT, instances }
    }

    /// Reads the record; one that is not there is empty, one of another format is an error.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(BTreeMap::new())),
            other => other?,
        };
        let record: Self = serde_json::from_str(&text)?;
        if record.format != FORMAT {
            let message = format!("expected format {FORMAT}, found {}", record.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(record)
    }

    /// Writes the record whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&new, path)
    }
}
