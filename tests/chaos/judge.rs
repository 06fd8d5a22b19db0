//! The judge of a run's end: the same for every fault, and it sees only what was observed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::faults::{Fault, reasons};
use super::harness::{condition, phase};

/// What became of a member's tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// As it was backed up, byte for byte.
    Whole,
    /// As it was before the run.
    Untouched,
    /// Neither; what differs from the backup.
    Other(String),
}

/// A Job that was there at some time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Made {
    /// Key of its step.
    pub key: String,
    pub attempt: i64,
    pub uid: String,
}

/// What was seen of a run.
#[derive(Debug)]
pub struct Seen {
    /// The batch at its end, or when patience was.
    pub batch: Value,
    /// Faults of its own that it met.
    pub met: Vec<Fault>,
    pub jobs: BTreeSet<Made>,
    /// Most restore pods that were alive at the same time.
    pub beside: usize,
    pub trees: Vec<Tree>,
    /// Replicas that the workload asks for.
    pub replicas: i64,
    /// Those it had.
    pub wanted: i64,
}

/// What is wrong with it; empty when all is as promised.
pub fn defects(seen: &Seen) -> Vec<String> {
    let mut wrong = vec![];
    let status = &seen.batch["status"];
    let members = status["members"].as_array().cloned().unwrap_or_default();
    match phase(&seen.batch) {
        "Succeeded" => {
            for (n, tree) in seen.trees.iter().enumerate() {
                if *tree != Tree::Whole {
                    wrong.push(format!("WRONG TREE: Succeeded, and the tree of member {n} is {tree:?}"));
                }
                let host = &members[n]["stats"][0];
                if host["planned"] != host["restored"] || !host["restored"].is_object() {
                    wrong.push(format!("member {n} was counted wrong: {host}"));
                }
            }
        }
        "Failed" => {
            let (_, reason, text) = condition(&seen.batch, "Stalled");
            if !reasons(&seen.met).contains(reason.as_str()) {
                wrong.push(format!("failed with {reason}, which its faults {:?} do not excuse: {text}", seen.met));
            }
            for (n, (member, tree)) in members.iter().zip(&seen.trees).enumerate() {
                match member["phase"].as_str().unwrap_or_default() {
                    "Succeeded" if *tree != Tree::Whole => {
                        wrong.push(format!("WRONG TREE: member {n} Succeeded, and its tree is {tree:?}"));
                    }
                    "Skipped" | "Pending" if *tree != Tree::Untouched => {
                        wrong.push(format!("member {n} was never started, and its tree is {tree:?}"));
                    }
                    "Running" => wrong.push(format!("member {n} runs although the run is over")),
                    _ => {}
                }
            }
        }
        other => wrong.push(format!("LOST RUN: not over in time, phase {other:?}: {status:#}")),
    }
    wrong.extend(doubled(seen, &members));
    if seen.beside > 1 {
        wrong.push(format!("DOUBLED JOB: {} restore pods at the same time", seen.beside));
    }
    if seen.replicas != seen.wanted {
        wrong.push(format!("WORKLOAD: {} replicas are asked for instead of {}", seen.replicas, seen.wanted));
    }
    wrong
}

/// Each attempt at a step has one Job, and none comes after the attempt that status ends with.
fn doubled(seen: &Seen, members: &[Value]) -> Vec<String> {
    let mut by_attempt: BTreeMap<(&str, i64), usize> = BTreeMap::new();
    for job in &seen.jobs {
        *by_attempt.entry((&job.key, job.attempt)).or_default() += 1;
    }
    let told = |key: &str| {
        let steps = seen.batch["status"]["run"]["steps"].as_array().cloned().unwrap_or_default();
        // The key of a preflight names its hosts too.
        let of_step = steps.into_iter().find(|s| s["name"] == key.split('/').next().unwrap());
        let of_step = of_step.and_then(|s| s["attempt"].as_i64());
        let of_host = key.strip_prefix("restore/").and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
        of_step.or_else(|| members.get(of_host?)?["stats"][0]["attempt"].as_i64())
    };
    // One that somebody deletes is made again.
    let mut deleted = seen.met.iter().filter(|f| **f == Fault::JobDeleted).count();
    let mut wrong = vec![];
    for ((key, attempt), count) in by_attempt {
        let again = deleted.min(count - 1);
        deleted -= again;
        if count - again > 1 {
            wrong.push(format!("DOUBLED JOB: {count} Jobs of {key}, attempt {attempt}"));
        }
        if told(key).is_none_or(|last| attempt > last) {
            wrong.push(format!("DOUBLED JOB: attempt {attempt} of {key}, and status knows of {:?}", told(key)));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(key: &str, attempt: i64, uid: &str) -> Made {
        Made { key: key.into(), attempt, uid: uid.into() }
    }

    /// A run in which nothing went wrong.
    fn fine() -> Seen {
        let counts = json!({ "files": 3, "bytes": 9 });
        let member =
            json!({ "phase": "Succeeded", "stats": [{ "attempt": 1, "planned": counts, "restored": counts }] });
        Seen {
            batch: json!({ "status": {
                "phase": "Succeeded", "members": [member, member, member],
                "run": { "steps": [{ "name": "preflight", "attempt": 1 }] },
            } }),
            met: vec![],
            jobs: [made("preflight/0f", 1, "a"), made("restore/0/m0", 1, "b"), made("restore/1/m1", 1, "c")].into(),
            beside: 1,
            trees: vec![Tree::Whole; 3],
            replicas: 2,
            wanted: 2,
        }
    }

    fn failed(reason: &str, met: Vec<Fault>) -> Seen {
        let mut seen = fine();
        seen.batch["status"]["phase"] = json!("Failed");
        seen.batch["status"]["conditions"] = json!([{ "type": "Stalled", "status": "True", "reason": reason }]);
        seen.batch["status"]["members"][1]["phase"] = json!("Failed");
        seen.batch["status"]["members"][2] = json!({ "phase": "Skipped" });
        seen.trees = vec![Tree::Whole, Tree::Other(String::new()), Tree::Untouched];
        seen.met = met;
        seen
    }

    fn one(seen: &Seen, what: &str) {
        let wrong = defects(seen);
        assert!(wrong.len() == 1 && wrong[0].contains(what), "{wrong:?}");
    }

    #[test]
    fn a_run_as_promised_has_no_defect() {
        assert_eq!(defects(&fine()), Vec::<String>::new());
        assert_eq!(defects(&failed("DataCorrupt", vec![Fault::PackCut])), Vec::<String>::new());
    }

    #[test]
    fn a_success_with_a_wrong_tree_is_a_defect() {
        let mut seen = fine();
        seen.trees[2] = Tree::Untouched;
        one(&seen, "WRONG TREE");
        let mut seen = fine();
        seen.batch["status"]["members"][0]["stats"][0]["restored"] = json!({ "files": 2, "bytes": 9 });
        one(&seen, "counted wrong");
    }

    #[test]
    fn a_failure_without_a_reason_for_it_is_a_defect() {
        one(&failed("DataCorrupt", vec![Fault::Operator]), "do not excuse");
        one(&failed("ResticFailed", vec![Fault::PackCut]), "do not excuse");
        let mut seen = failed("DataCorrupt", vec![Fault::PackCut]);
        seen.trees[2] = Tree::Whole;
        one(&seen, "never started");
        seen.trees = vec![Tree::Untouched; 3];
        one(&seen, "WRONG TREE");
    }

    #[test]
    fn a_run_that_does_not_end_is_a_defect() {
        let mut seen = fine();
        seen.batch["status"]["phase"] = json!("Running");
        one(&seen, "LOST RUN");
        seen.batch["status"]["phase"] = Value::Null;
        one(&seen, "LOST RUN");
    }

    #[test]
    fn a_job_too_many_is_a_defect() {
        let mut seen = fine();
        seen.jobs.insert(made("restore/1/m1", 1, "d"));
        one(&seen, "2 Jobs of restore/1/m1");
        seen.met = vec![Fault::JobDeleted];
        assert_eq!(defects(&seen), Vec::<String>::new(), "made again");
        seen.jobs.insert(made("restore/0/m0", 1, "e"));
        one(&seen, "2 Jobs of restore/1/m1");
        let mut seen = fine();
        seen.jobs.insert(made("restore/1/m1", 2, "d"));
        one(&seen, "attempt 2 of restore/1/m1");
        let mut seen = fine();
        seen.beside = 2;
        one(&seen, "at the same time");
    }

    #[test]
    fn a_workload_left_at_zero_is_a_defect() {
        let mut seen = fine();
        seen.replicas = 0;
        one(&seen, "WORKLOAD");
    }
}
