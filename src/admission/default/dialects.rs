//! Merges fields with the same meaning into one.
//!
//! Rules are below the target, and the order is `executionOrder`, as in the published CRDs. An empty or equal value
//! is removed without an error. A contradiction is not resolved here, because a wrong guess overwrites data.

use serde_json::{Map, Value};

use crate::api::common::Rule;

/// Moves the rules next to a target into it, if it has none or the same ones.
pub fn move_rules(holder: &mut Map<String, Value>) {
    let Some(beside) = holder.get("rules").cloned() else { return };
    let Some(target) = holder.get_mut("target").and_then(Value::as_object_mut) else { return };
    let below = target.get("rules");
    if is_empty(&beside) || below.is_some_and(|below| same(below, &beside)) {
        holder.remove("rules");
    } else if below.is_none_or(is_empty) {
        target.insert("rules".into(), beside);
        holder.remove("rules");
    }
}

/// Converts `maintainOrder` to `executionOrder`, and sets `Parallel` if neither is given.
pub fn one_order(spec: &mut Map<String, Value>) {
    let order = spec.get("executionOrder").filter(|v| !v.is_null());
    let maintain = spec.get("maintainOrder").filter(|v| !v.is_null());
    let meant = match maintain {
        Some(Value::Bool(true)) => "Sequential",
        None | Some(Value::Bool(false)) => "Parallel",
        // Not a boolean: validation reports it.
        Some(_) => return,
    };
    match order {
        Some(order) if maintain.is_some() && order != meant => return,
        Some(_) => {}
        None => {
            spec.insert("executionOrder".into(), meant.into());
        }
    }
    spec.remove("maintainOrder");
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Equal as rules: an empty list of hosts and none at all mean the same.
fn same(a: &Value, b: &Value) -> bool {
    let read = |v: &Value| serde_json::from_value::<Vec<Rule>>(v.clone()).ok();
    a == b || read(a).is_some_and(|a| read(b) == Some(a))
}
