//! Types of the custom resources, and nothing else.
//!
//! Each kind is in a file of the same name. Field names, types, defaults, printer columns and short names are those
//! of Stash, so that its manifests apply unchanged. Fields that Lifeboat adds are optional, and their description
//! begins with "Extension". The CRDs in `crds/` are generated from these types (`lifeboat crds`).

pub mod app_binding;
pub mod backup_batch;
pub mod backup_blueprint;
pub mod backup_configuration;
pub mod backup_session;
pub mod bounds;
pub mod common;
pub mod condition;
pub mod function;
pub mod hooks;
mod json;
pub mod repository;
pub mod restore_batch;
pub mod restore_session;
pub mod runtime;
pub mod schema;
pub mod snapshot;
pub mod target;
pub mod task;
pub mod volume;

use kube::CustomResourceExt as _;
use serde_json::Value;

pub use app_binding::AppBinding;
pub use backup_batch::BackupBatch;
pub use backup_blueprint::BackupBlueprint;
pub use backup_configuration::BackupConfiguration;
pub use backup_session::BackupSession;
pub use condition::Condition;
pub use function::Function;
pub use json::{clean, to_json};
pub use repository::Repository;
pub use restore_batch::RestoreBatch;
pub use restore_session::RestoreSession;
pub use snapshot::Snapshot;
pub use task::Task;

/// All CRDs, complete, in the order of their file names.
pub fn all_crds() -> Vec<Value> {
    [
        AppBinding::crd(),
        BackupBatch::crd(),
        BackupBlueprint::crd(),
        BackupConfiguration::crd(),
        BackupSession::crd(),
        Function::crd(),
        Repository::crd(),
        RestoreBatch::crd(),
        RestoreSession::crd(),
        Snapshot::crd(),
        Task::crd(),
    ]
    .iter()
    .map(schema::finish)
    .collect()
}

/// Schema of the spec of a kind that users write. `None` for any other kind.
pub fn spec_of(kind: &str) -> Option<Value> {
    Some(match kind {
        "BackupBatch" => schema::of_spec::<backup_batch::BackupBatchSpec>(),
        "BackupBlueprint" => schema::of_spec::<backup_blueprint::BackupBlueprintSpec>(),
        "BackupConfiguration" => schema::of_spec::<backup_configuration::BackupConfigurationSpec>(),
        "BackupSession" => schema::of_spec::<backup_session::BackupSessionSpec>(),
        "Function" => schema::of_spec::<function::FunctionSpec>(),
        "Repository" => schema::of_spec::<repository::RepositorySpec>(),
        "RestoreBatch" => schema::of_spec::<restore_batch::RestoreBatchSpec>(),
        "RestoreSession" => schema::of_spec::<restore_session::RestoreSessionSpec>(),
        "Task" => schema::of_spec::<task::TaskSpec>(),
        _ => return None,
    })
}
