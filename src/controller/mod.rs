//! The operator's side of the cluster: observe, plan, apply, report.

pub mod certs;
