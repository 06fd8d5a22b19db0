//! The courses of a run, and the states that it goes through, derived from its status alone.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::harness::{condition, phase};

/// What a run does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Course {
    /// Restores three members one after another: a claim, a Deployment, a claim.
    InOrder,
    /// Restores three members beside each other: a claim, a Deployment, a StatefulSet.
    Beside,
    /// Backs up the same three members, into a repository that does not exist yet.
    Backup,
}

/// Name of a state, and a check whether a run has come so far. "Created" is always true.
type State = (&'static str, fn(&Value) -> bool);

/// Each state is one write of status by the operator, as long as nothing goes wrong.
const IN_ORDER: [State; 11] = [
    ("created", |_| true),
    ("preflight announced", |o| o["status"]["run"]["steps"].is_array()),
    ("snapshots pinned, member 0 announced", |o| announced(o, 0)),
    ("Job of member 0 made", |o| job_made(member(o, 0))),
    ("member 0 restored, member 1 to be scaled to zero", |o| member(o, 1)["quiesce"].is_object()),
    ("member 1 at zero and announced", |o| announced(o, 1)),
    ("Job of member 1 made", |o| job_made(member(o, 1))),
    ("member 1 restored", |o| member(o, 1)["stats"][0]["phase"] == "Succeeded"),
    ("member 1 scaled back, member 2 announced", |o| announced(o, 2)),
    ("Job of member 2 made", |o| job_made(member(o, 2))),
    ("over", is_over),
];
/// One write of status may reach several of these states.
const BESIDE: [State; 7] = [
    ("created", |_| true),
    ("preflight announced", |o| o["status"]["run"]["steps"].is_array()),
    ("workloads to be scaled to zero", |o| any(o, |m| m["quiesce"].is_object())),
    ("a workload at zero and announced", |o| any(o, |m| m["quiesce"].is_object() && m["stats"][0]["attempt"].is_i64())),
    ("a member restored", |o| any(o, |m| m["phase"] == "Succeeded")),
    ("a workload scaled back", |o| any(o, |m| m["quiesce"]["state"] == "Resumed")),
    ("over", is_over),
];
/// One write of status may reach several of these states.
const BACKUP: [State; 6] = [
    ("created", |_| true),
    ("the repository being prepared", |o| o["status"]["run"]["steps"].is_array()),
    ("a host being backed up", |o| any(o, |m| m["stats"][0].is_object())),
    ("a member backed up", |o| any(o, |m| m["phase"] == "Succeeded")),
    ("all members backed up", |o| !members(o).is_empty() && !any(o, |m| m["phase"] != "Succeeded")),
    ("over", is_over),
];

impl Course {
    /// All courses.
    pub const ALL: [Self; 3] = [Self::InOrder, Self::Beside, Self::Backup];

    fn states(self) -> &'static [State] {
        match self {
            Self::InOrder => &IN_ORDER,
            Self::Beside => &BESIDE,
            Self::Backup => &BACKUP,
        }
    }

    /// The last state; nothing comes after it.
    pub fn over(self) -> usize {
        self.states().len() - 1
    }

    /// Name of a state.
    pub fn state(self, index: usize) -> &'static str {
        self.states()[index].0
    }

    /// The last state that an object has reached, as an index. It never decreases, whatever is retried.
    pub fn rank(self, object: &Value) -> usize {
        self.states().iter().rposition(|(_, reached)| reached(object)).unwrap_or(0)
    }

    /// Kind of the object that is one run.
    pub fn kind(self) -> &'static str {
        if self == Self::Backup { "BackupSession" } else { "RestoreBatch" }
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InOrder => "restore in order",
            Self::Beside => "restore side by side",
            Self::Backup => "backup",
        })
    }
}

pub fn is_over(object: &Value) -> bool {
    ["Succeeded", "Failed", "Invalid", "Skipped"].contains(&phase(object))
}

/// Whether a step that runs beside no backup of the run waits for a lock. The lock is then of a killed restic.
pub fn waits_for_a_lock(object: &Value) -> bool {
    let steps = object["status"]["run"]["steps"].as_array();
    steps.into_iter().flatten().any(|step| step["reason"] == "RepositoryLocked")
}

/// Members of a restore, targets of a backup.
pub fn members(object: &Value) -> Vec<Value> {
    let status = &object["status"];
    let all = status["members"].as_array().or(status["targets"].as_array());
    all.cloned().unwrap_or_default()
}

/// Stats of a host in a member's status.
pub fn stats_of(members: &[Value], member: usize, host: &str) -> Value {
    let all = members.get(member).and_then(|m| m["stats"].as_array());
    all.into_iter().flatten().find(|h| h["hostname"] == host).cloned().unwrap_or_default()
}

fn any(object: &Value, is: impl Fn(&Value) -> bool) -> bool {
    members(object).iter().any(is)
}

fn member(object: &Value, n: usize) -> &Value {
    &object["status"]["members"][n]
}

fn announced(object: &Value, n: usize) -> bool {
    member(object, n)["stats"][0]["attempt"].is_i64()
}

fn job_made(member: &Value) -> bool {
    // The harness looks for conditions below a status.
    condition(&serde_json::json!({ "status": member }), "RestoreJobCreated").0 == "True"
}

/// The parts of a status that make up its state: all but times, texts, counts and progress.
pub fn shape(object: &Value) -> String {
    let status = &object["status"];
    let conditions = |of: &Value| {
        let all = of["conditions"].as_array().cloned().unwrap_or_default();
        let one = |c: &Value| format!("{}={}/{}", c["type"], c["status"], c["reason"]);
        all.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let mut shape = format!("{} {} [{}]", status["phase"], status["run"]["steps"], conditions(status));
    for member in members(object) {
        let _ =
            write!(shape, " | {} quiesce {} [{}]", member["phase"], member["quiesce"]["state"], conditions(&member));
        for host in member["stats"].as_array().into_iter().flatten() {
            let (phase, attempt, pinned) = (&host["phase"], &host["attempt"], host["snapshots"].is_array());
            let _ = write!(shape, " host {phase} attempt {attempt} snapshots {pinned}");
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_is_told_from_status_and_never_goes_back() {
        let course = Course::InOrder;
        let mut batch = json!({ "status": {} });
        assert_eq!(course.rank(&batch), 0);
        batch["status"]["run"] = json!({ "steps": [{ "name": "preflight" }] });
        assert_eq!(course.rank(&batch), 1);
        let made = json!([{ "type": "RestoreJobCreated", "status": "True" }]);
        batch["status"]["members"] = json!([{ "stats": [{ "attempt": 1 }], "conditions": made }]);
        assert_eq!(course.state(course.rank(&batch)), "Job of member 0 made");
        batch["status"]["members"][0]["stats"][0]["attempt"] = json!(2);
        assert_eq!(course.state(course.rank(&batch)), "Job of member 0 made");
        let restored = json!({ "quiesce": {}, "stats": [{ "phase": "Succeeded", "attempt": 1 }] });
        batch["status"]["members"].as_array_mut().unwrap().push(restored);
        assert_eq!(course.state(course.rank(&batch)), "member 1 restored");
        batch["status"]["phase"] = json!("Failed");
        assert_eq!(course.rank(&batch), course.over());
    }

    #[test]
    fn who_waits_for_a_lock_is_known() {
        let of = |reason: &str| json!({ "status": { "run": { "steps": [{ "name": "prepare" }, { "name": "maintain", "reason": reason }] } } });
        assert!(waits_for_a_lock(&of("RepositoryLocked")) && !waits_for_a_lock(&of("RepositoryUnreachable")));
    }

    #[test]
    fn members_beside_each_other_and_backups_have_states_too() {
        let course = Course::Beside;
        let mut batch =
            json!({ "status": { "run": { "steps": [] }, "members": [{}, { "quiesce": { "state": "Announced" } }] } });
        assert_eq!(course.state(course.rank(&batch)), "workloads to be scaled to zero");
        batch["status"]["members"][0]["phase"] = json!("Succeeded");
        assert_eq!(course.state(course.rank(&batch)), "a member restored");
        let course = Course::Backup;
        let mut session = json!({ "status": { "run": { "steps": [] }, "targets": [] } });
        assert_eq!(course.state(course.rank(&session)), "the repository being prepared");
        session["status"]["targets"] = json!([{ "phase": "Succeeded", "stats": [{}] }, { "phase": "Running" }]);
        assert_eq!(course.state(course.rank(&session)), "a member backed up");
        session["status"]["targets"][1]["phase"] = json!("Succeeded");
        assert_eq!(course.state(course.rank(&session)), "all members backed up");
    }
}
