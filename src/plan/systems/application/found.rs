//! An application that was found, and what shall be done with it.

use crate::api::app_binding::AppBindingSpec;
use crate::api::common::TaskRef;

/// An application that was found, as the plan of a Job needs it.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Its AppBinding.
    pub binding: &'a AppBindingSpec,
    /// Name of the AppBinding.
    pub name: &'a str,
    /// Namespace of the AppBinding, which is the namespace of the Job.
    pub namespace: &'a str,
    /// The task that the member names.
    pub task: Option<&'a TaskRef>,
}

/// Whether data leaves the application or enters it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// A backup.
    Dump,
    /// A restore.
    Load,
}
