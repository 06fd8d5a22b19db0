//! The operator: observe, plan, apply, report. The only room that talks to Kubernetes.
//!
//! Every replica serves admission, health and metrics; one of them, the
//! [`process::leader`], reconciles. What has to be remembered is in the cluster, so a
//! new leader goes on where the old one was stopped.

pub mod apply;
pub mod cache;
pub mod kinds;
pub mod observe;
pub mod process;
