//! Reasons as label values: the known reasons, and one value for all others.
//!
//! A reason may come from the output of a Job. A user who controls that output must not be able to fill Prometheus with
//! series.

use crate::names::reason::ALL;

/// The label value of an unknown reason.
const OTHER: &str = "Other";

/// The reason itself, or `Other`.
pub fn known(reason: &str) -> &'static str {
    ALL.iter().find(|known| **known == reason).copied().unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_known_and_nothing_else() {
        let reasons = include_str!("../../../names/reason.rs");
        let all = reasons.lines().filter_map(|l| l.trim().strip_prefix("pub const ")?.split_once(": &str = "));
        let values: Vec<&str> = all.map(|(_, value)| value.trim_matches(['"', ';'])).collect();
        assert!(values.len() > 40);
        for value in &values {
            assert_eq!(known(value), *value, "it is not in the list");
        }
        assert_eq!(values.len(), ALL.len());
        assert_eq!(known("DataCorrupt\"} 1"), OTHER);
    }
}
