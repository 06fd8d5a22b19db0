//! From work to a Job: its pod, volumes, rights and Pod Security, and the attempts at a step.

pub mod attempt;
pub mod job_defaults;
pub mod job_spec;
pub mod pod_security;
pub mod process;
pub mod rbac;
pub mod retry;
pub mod rights;
pub mod step;
