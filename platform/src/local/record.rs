//! What is written down so that a later controller finds lives again and orphans are ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use foreshadow_model::{Instance, InstanceId};
use serde::{Deserialize, Serialize};

use super::member::ProcessMark;
use super::recipe::{Fingerprint, RecordedRecipe};

/// Version of the file's shape.
const FORMAT: u32 = 1;

/// Every instance with its process.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    pub(crate) instances: BTreeMap<InstanceId, Recorded>,
    /// Names under which something may have been made although there is no instance.
    #[serde(default)]
    pub(crate) reserved: BTreeSet<InstanceId>,
    /// What the lives among the instances are made of.
    #[serde(default)]
    pub(crate) recipes: BTreeMap<Fingerprint, RecordedRecipe>,
    /// Last revision of names that were retired.
    #[serde(default)]
    pub(crate) retired: BTreeMap<InstanceId, u64>,
}

/// One instance with its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Recorded {
    pub(crate) instance: Instance,
    pub(crate) process: Option<ProcessMark>,
    /// What it is made of; `None` in records of old.
    #[serde(default)]
    pub(crate) made_of: Option<Fingerprint>,
}

impl Record {
    pub(crate) fn new(instances: BTreeMap<InstanceId, Recorded>) -> Self {
        Self { format: FORMAT, instances, ..Self::default() }
    }

    /// Reads the record; one that is not there is empty, one of another format is an error.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(BTreeMap::new())),
            other => other.map_err(|error| named(path, error))?,
        };
        let refused = |why: String| {
            let message = format!(
                "`{}` is no record of instances ({why}); end what runs of the service and delete it",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        let record: Self = serde_json::from_str(&text).map_err(|error| refused(error.to_string()))?;
        if record.format != FORMAT {
            return Err(refused(format!("expected format {FORMAT}, found {}", record.format)));
        }
        Ok(record)
    }

    /// Writes the record whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, path)
        };
        write().map_err(|error| named(path, error))
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_none_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.json");
        for text in ["", "{", "[]", "null", "{\"format\":2,\"instances\":{}}", "{\"format\":1}"] {
            fs::write(&path, text).unwrap();
            let error = Record::read(&path).unwrap_err().to_string();
            assert!(error.contains("instances.json") && error.contains("delete it"), "{error}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_none_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("instances.json");
        assert!(Record::read(&path).unwrap().instances.is_empty());
        Record::new(BTreeMap::new()).write(&path).unwrap();
        assert!(Record::read(&path).unwrap().instances.is_empty());
    }
}
