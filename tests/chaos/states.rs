//! The states that an ordered batch of three members goes through, told from its status alone.

use std::fmt::Write as _;

use serde_json::Value;

use super::harness::{condition, phase};

/// In their order. Each is one write of status by the operator, as long as nothing goes wrong.
pub const STATES: [&str; 11] = [
    "created",
    "preflight announced",
    "snapshots pinned, member 0 announced",
    "Job of member 0 made",
    "member 0 restored, member 1 to be scaled to zero",
    "member 1 at zero and announced",
    "Job of member 1 made",
    "member 1 restored",
    "member 1 scaled back, member 2 announced",
    "Job of member 2 made",
    "over",
];

/// The last state; nothing comes after it.
pub const OVER: usize = STATES.len() - 1;

pub fn is_over(batch: &Value) -> bool {
    ["Succeeded", "Failed", "Invalid"].contains(&phase(batch))
}

/// How far a batch has come, as an index of [`STATES`]. Never less than before, whatever is tried again.
pub fn rank(batch: &Value) -> usize {
    let member = |n: usize| &batch["status"]["members"][n];
    let host = |n: usize| &member(n)["stats"][0];
    let job = |n: usize| condition_of(member(n), "RestoreJobCreated");
    let reached = [
        true,
        batch["status"]["run"]["steps"].is_array(),
        host(0)["attempt"].is_i64(),
        job(0),
        member(1)["quiesce"].is_object(),
        host(1)["attempt"].is_i64(),
        job(1),
        host(1)["phase"] == "Succeeded",
        host(2)["attempt"].is_i64(),
        job(2),
        is_over(batch),
    ];
    reached.iter().rposition(|r| *r).unwrap_or(0)
}

fn condition_of(member: &Value, kind: &str) -> bool {
    // The harness looks for conditions below a status.
    condition(&serde_json::json!({ "status": member }), kind).0 == "True"
}

/// What of a status is its state: all but times, texts, counts and progress.
pub fn shape(batch: &Value) -> String {
    let status = &batch["status"];
    let conditions = |of: &Value| {
        let all = of["conditions"].as_array().cloned().unwrap_or_default();
        let one = |c: &Value| format!("{}={}/{}", c["type"], c["status"], c["reason"]);
        all.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let mut shape = format!("{} {} [{}]", status["phase"], status["run"]["steps"], conditions(status));
    for member in status["members"].as_array().cloned().unwrap_or_default() {
        let host = &member["stats"][0];
        let _ = write!(
            shape,
            " | {} quiesce {} host {} attempt {} pinned {} [{}]",
            member["phase"],
            member["quiesce"]["state"],
            host["phase"],
            host["attempt"],
            host["snapshots"].is_array(),
            conditions(&member)
        );
    }
    shape
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_told_from_status_and_never_goes_back() {
        let mut batch = json!({ "status": {} });
        assert_eq!(rank(&batch), 0);
        batch["status"]["run"] = json!({ "steps": [{ "name": "preflight" }] });
        assert_eq!(rank(&batch), 1);
        let made = json!([{ "type": "RestoreJobCreated", "status": "True" }]);
        batch["status"]["members"] = json!([{ "stats": [{ "attempt": 1 }], "conditions": made }]);
        assert_eq!(STATES[rank(&batch)], "Job of member 0 made");
        batch["status"]["members"][0]["stats"][0]["attempt"] = json!(2);
        assert_eq!(STATES[rank(&batch)], "Job of member 0 made");
        let restored = json!({ "quiesce": {}, "stats": [{ "phase": "Succeeded", "attempt": 1 }] });
        batch["status"]["members"].as_array_mut().unwrap().push(restored);
        assert_eq!(STATES[rank(&batch)], "member 1 restored");
        batch["status"]["phase"] = json!("Failed");
        assert_eq!(rank(&batch), OVER);
    }
}
