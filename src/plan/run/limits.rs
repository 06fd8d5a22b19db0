//! Order and longest time of a run, as its spec says them.

use std::time::Duration;

use super::duration;
use crate::api::common::ExecutionOrder;
use crate::names::reason;
use crate::plan::seen::Refusal;

/// Why a run may not take as long as this field says; `longest` is the limit that the operator is configured with.
pub fn too_long(field: &str, time_out: Option<&str>, longest: Duration) -> Option<Refusal> {
    let asked = time_out.filter(|t| duration::parse(t).is_ok_and(|t| t > longest))?;
    let message = format!(
        "{field}: {asked} is more than the {} that this operator allows (maxTimeout of its chart).",
        duration::format(longest)
    );
    Some(Refusal { reason: reason::INVALID.to_owned(), message })
}

/// Whether members run one after another, in either of the two ways that a batch can say it.
pub fn is_sequential(order: Option<ExecutionOrder>, maintain: Option<bool>) -> bool {
    order.map_or(maintain == Some(true), |o| o == ExecutionOrder::Sequential)
}
