//! How the processes of a Job are scheduled.

use crate::api::runtime::RuntimeSettings;
use crate::contract::Process;

/// As the settings of the Job say.
pub fn of(runtime: Option<&RuntimeSettings>) -> Process {
    let container = runtime.and_then(|r| r.container.as_ref());
    let ionice = container.and_then(|c| c.ionice);
    Process {
        nice: container.and_then(|c| c.nice?.adjustment),
        ionice_class: ionice.and_then(|i| i.class),
        ionice_class_data: ionice.and_then(|i| i.class_data),
    }
}
