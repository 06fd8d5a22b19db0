//! The planning half of each system: what its Jobs are asked, and what their answers mean. No two know each other.

pub mod restic;
