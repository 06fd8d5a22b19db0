//! The operator: observe, plan, apply, report. The only module that talks to Kubernetes.
//!
//! Every replica serves admission, health and metrics; one of them, the
//! [`process::leader`], reconciles. All persistent state is in the cluster, so a
//! new leader continues where the old leader stopped.

pub mod apply;
pub mod cache;
pub mod kinds;
pub mod observe;
pub mod process;
