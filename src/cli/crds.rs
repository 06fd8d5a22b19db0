//! Writes the CRDs, generated from the Rust types.

use std::fs;
use std::path::Path;

use crate::{api, yaml};

/// Writes one file per kind, named by its plural, into `folder`.
///
/// # Errors
/// The folder or a file cannot be written.
pub fn write(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    for crd in api::all_crds() {
        let plural = crd.pointer("/spec/names/plural").and_then(serde_json::Value::as_str).unwrap_or_default();
        let file = folder.join(format!("{plural}.yaml"));
        fs::write(&file, yaml::write(&crd)?).map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    }
    Ok(())
}
