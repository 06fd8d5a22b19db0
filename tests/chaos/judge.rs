//! The judge of a run's end. It is the same for every fault, and uses only what was observed.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::faults::{Fault, reasons};
use super::field::Came;
use super::harness::{condition, phase};
use super::states::{Course, members, stats_of};

/// A Job that existed at some time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Made {
    /// Key of its step.
    pub key: String,
    pub attempt: i64,
    pub uid: String,
}

/// Final state of a host of a member.
#[derive(Debug)]
pub struct Host {
    pub member: usize,
    pub name: String,
    pub came: Came,
}

/// Final state of a workload.
#[derive(Debug)]
pub struct Workload {
    /// Kind and name.
    pub name: String,
    /// Replicas in the workload's spec.
    pub replicas: i64,
    /// The workload's own note on why it stays down.
    pub held: Option<String>,
}

/// Everything that was observed of a run.
#[derive(Debug)]
pub struct Seen {
    pub course: Course,
    /// The batch or session at its end, or when patience ran out.
    pub object: Value,
    /// The run's own faults that it met.
    pub met: Vec<Fault>,
    pub jobs: BTreeSet<Made>,
    /// Largest number of pods that wrote data at the same time.
    pub beside: usize,
    /// Keys of steps for which two pods wrote data at the same time.
    pub twice: BTreeSet<String>,
    pub hosts: Vec<Host>,
    pub workloads: Vec<Workload>,
    /// Replicas that each workload had.
    pub wanted: i64,
    /// Whether the repository is sound; only for a backup.
    pub sound: Result<(), String>,
}

/// Defects of a run; empty when all is as promised.
pub fn defects(seen: &Seen) -> Vec<String> {
    let mut wrong = vec![];
    let (status, members) = (&seen.object["status"], members(&seen.object));
    match phase(&seen.object) {
        "Succeeded" => {
            for host in &seen.hosts {
                if host.came != Came::Whole {
                    wrong.push(format!("WRONG TREE: Succeeded, and the tree of {} is {:?}", host.name, host.came));
                }
                let stats = stats_of(&members, host.member, &host.name);
                let counted = match seen.course {
                    Course::Backup => stats["snapshots"][0]["fileStats"]["totalFiles"].as_i64() > Some(0),
                    _ => stats["planned"] == stats["restored"] && stats["restored"].is_object(),
                };
                if !counted {
                    wrong.push(format!("host {} was counted wrong: {stats}", host.name));
                }
            }
        }
        "Failed" => {
            let (_, reason, _) = condition(&seen.object, "Stalled");
            let text = condition(&seen.object, "Ready").2;
            if !reasons(&seen.met).contains(reason.as_str()) {
                wrong.push(format!("failed with {reason}, which its faults {:?} do not excuse: {text}", seen.met));
            }
            for host in &seen.hosts {
                let (name, came) = (&host.name, &host.came);
                let member = members.get(host.member).map(|m| m["phase"].as_str().unwrap_or_default());
                match member.unwrap_or_default() {
                    "Succeeded" if *came != Came::Whole => {
                        wrong.push(format!("WRONG TREE: the member of {name} Succeeded, and its tree is {came:?}"));
                    }
                    "Skipped" | "Pending" if *came != Came::Untouched => {
                        wrong.push(format!("the member of {name} was never started, and its tree is {came:?}"));
                    }
                    "Running" => wrong.push(format!("the member of {name} runs although the run is over")),
                    _ => {}
                }
            }
        }
        other => wrong.push(format!("LOST RUN: not over in time, phase {other:?}: {status}")),
    }
    wrong.extend(doubled(seen, &members));
    if let Err(why) = &seen.sound {
        wrong.push(format!("REPOSITORY: {why}"));
    }
    for Workload { name, replicas, held } in &seen.workloads {
        let is_back = *replicas == seen.wanted && held.is_none();
        let stays_down = *replicas == 0 && may_stay_down(seen, &members, name, held.as_deref());
        if !is_back && !stays_down {
            wrong.push(format!(
                "WORKLOAD: {replicas} replicas of {name} are asked for instead of {}, and it says {held:?}",
                seen.wanted
            ));
        }
    }
    wrong
}

/// Whether a workload may be at zero replicas. The restore of one of its hosts must have begun without success. Both
/// status and annotation must say that the workload stays down, and to how many replicas it returns.
fn may_stay_down(seen: &Seen, members: &[Value], name: &str, held: Option<&str>) -> bool {
    let note: Value = held.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let of = |m: &&Value| {
        let quiesce = &m["quiesce"];
        let own = format!("{} {}", quiesce["ref"]["kind"], quiesce["ref"]["name"]).replace('"', "");
        own == name && quiesce["state"] == "Held"
    };
    let half = |h: &Value| h["attempt"].is_i64() && h["phase"] != "Succeeded" && h["unwritten"] != h["attempt"];
    let stays = members.iter().filter(of).any(|m| m["stats"].as_array().is_some_and(|all| all.iter().any(half)));
    stays && note["replicas"] == seen.wanted
}

/// Checks that each attempt at a step has one Job, and that no Job is later than the last attempt in status.
fn doubled(seen: &Seen, members: &[Value]) -> Vec<String> {
    let mut wrong = vec![];
    let mut by_attempt: BTreeMap<(&str, i64), usize> = BTreeMap::new();
    for job in &seen.jobs {
        *by_attempt.entry((&job.key, job.attempt)).or_default() += 1;
    }
    let told = |key: &str| {
        let steps = seen.object["status"]["run"]["steps"].as_array().cloned().unwrap_or_default();
        // The key of a preflight names its hosts too.
        let of_step = steps.into_iter().find(|s| s["name"] == key.split('/').next().unwrap());
        let of_step = of_step.and_then(|s| s["attempt"].as_i64());
        let of_host = || {
            let (_, member_and_host) = key.split_once('/')?;
            let (member, host) = member_and_host.split_once('/')?;
            stats_of(members, member.parse().ok()?, host)["attempt"].as_i64()
        };
        of_step.or_else(of_host)
    };
    if seen.course == Course::InOrder && seen.beside > 1 {
        wrong.push(format!("DOUBLED JOB: {} pods of a run in order were writing at the same time", seen.beside));
    }
    wrong.extend(seen.twice.iter().map(|key| format!("DOUBLED JOB: two pods of {key} were writing at the same time")));
    // A Job that is deleted is created again.
    let mut deleted = seen.met.iter().filter(|f| **f == Fault::JobDeleted).count();
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

    fn hosts(came: [Came; 3]) -> Vec<Host> {
        came.into_iter().enumerate().map(|(n, came)| Host { member: n, name: format!("m{n}"), came }).collect()
    }

    /// A restore in which nothing went wrong.
    fn fine() -> Seen {
        let counts = json!({ "files": 3, "bytes": 9 });
        let member = |n: usize| {
            json!({ "phase": "Succeeded",
                "stats": [{ "hostname": format!("m{n}"), "attempt": 1, "planned": counts, "restored": counts }] })
        };
        Seen {
            course: Course::InOrder,
            object: json!({ "status": {
                "phase": "Succeeded", "members": [member(0), member(1), member(2)],
                "run": { "steps": [{ "name": "preflight", "attempt": 1 }] },
            } }),
            met: vec![],
            jobs: [made("preflight/0f", 1, "a"), made("restore/0/m0", 1, "b"), made("restore/1/m1", 1, "c")].into(),
            beside: 1,
            twice: BTreeSet::new(),
            hosts: hosts([Came::Whole, Came::Whole, Came::Whole]),
            workloads: vec![Workload { name: "Deployment web".into(), replicas: 2, held: None }],
            wanted: 2,
            sound: Ok(()),
        }
    }

    /// A backup in which nothing went wrong.
    fn fine_backup() -> Seen {
        let snapshots = json!([{ "name": "1a", "fileStats": { "totalFiles": 3 } }]);
        let target = |n: usize| {
            json!({ "phase": "Succeeded",
                "stats": [{ "hostname": format!("m{n}"), "attempt": 1, "snapshots": snapshots }] })
        };
        Seen {
            course: Course::Backup,
            object: json!({ "status": {
                "phase": "Succeeded", "targets": [target(0), target(1), target(2)],
                "run": { "steps": [{ "name": "prepare", "attempt": 1 }, { "name": "maintain", "attempt": 1 }] },
            } }),
            jobs: [made("prepare", 1, "a"), made("backup/0/m0", 1, "b"), made("maintain", 1, "c")].into(),
            beside: 3,
            ..fine()
        }
    }

    fn failed(reason: &str, met: Vec<Fault>) -> Seen {
        let mut seen = fine();
        seen.object["status"]["phase"] = json!("Failed");
        seen.object["status"]["conditions"] = json!([{ "type": "Stalled", "status": "True", "reason": reason }]);
        seen.object["status"]["members"][1]["phase"] = json!("Failed");
        seen.object["status"]["members"][2] = json!({ "phase": "Skipped" });
        seen.hosts = hosts([Came::Whole, Came::Other(String::new()), Came::Untouched]);
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
        assert_eq!(defects(&fine_backup()), Vec::<String>::new());
        assert_eq!(defects(&failed("DataCorrupt", vec![Fault::PackCut])), Vec::<String>::new());
    }

    #[test]
    fn a_success_with_a_wrong_tree_is_a_defect() {
        let mut seen = fine();
        seen.hosts[2].came = Came::Untouched;
        one(&seen, "WRONG TREE");
        let mut seen = fine();
        seen.object["status"]["members"][0]["stats"][0]["restored"] = json!({ "files": 2, "bytes": 9 });
        one(&seen, "counted wrong");
    }

    #[test]
    fn a_backup_that_cannot_be_restored_or_harms_the_repository_is_a_defect() {
        let mut seen = fine_backup();
        seen.hosts[1].came = Came::Other("restic restore: no such snapshot".into());
        one(&seen, "WRONG TREE");
        let mut seen = fine_backup();
        seen.object["status"]["targets"][0]["stats"][0]["snapshots"] = json!([]);
        one(&seen, "counted wrong");
        let mut seen = fine_backup();
        seen.sound = Err("pack missing".into());
        one(&seen, "REPOSITORY");
        let mut seen = fine_backup();
        seen.jobs.insert(made("backup/0/m0", 2, "e"));
        one(&seen, "attempt 2 of backup/0/m0");
        let mut seen = fine_backup();
        seen.object["status"]["phase"] = json!("Skipped");
        one(&seen, "LOST RUN");
    }

    #[test]
    fn a_failure_without_a_reason_for_it_is_a_defect() {
        one(&failed("DataCorrupt", vec![Fault::Operator]), "do not excuse");
        one(&failed("ResticFailed", vec![Fault::PackCut]), "do not excuse");
        let mut seen = failed("DataCorrupt", vec![Fault::PackCut]);
        seen.hosts[2].came = Came::Whole;
        one(&seen, "never started");
        seen.hosts = hosts([Came::Untouched, Came::Untouched, Came::Untouched]);
        one(&seen, "WRONG TREE");
    }

    #[test]
    fn a_run_that_does_not_end_is_a_defect() {
        let mut seen = fine();
        seen.object["status"]["phase"] = json!("Running");
        one(&seen, "LOST RUN");
        seen.object["status"]["phase"] = Value::Null;
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
        seen.course = Course::Beside;
        assert_eq!(defects(&seen), Vec::<String>::new(), "they may");
        seen.twice.insert("restore/0/m0".into());
        one(&seen, "two pods of restore/0/m0");
    }

    #[test]
    fn a_workload_left_at_zero_is_a_defect() {
        let mut seen = fine();
        seen.workloads[0].replicas = 0;
        one(&seen, "WORKLOAD");
    }

    #[test]
    fn a_workload_may_stay_down_only_where_data_is_half_restored_and_all_say_so() {
        let mut seen = failed("DataCorrupt", vec![Fault::PackCut]);
        seen.object["status"]["members"][1]["quiesce"] =
            json!({ "ref": { "kind": "Deployment", "name": "web" }, "state": "Held", "replicas": 2 });
        seen.object["status"]["members"][1]["stats"][0]["phase"] = json!("Failed");
        let held = |replicas: i64| Some(json!({ "replicas": replicas, "uid": "u" }).to_string());
        seen.workloads[0] = Workload { name: "Deployment web".into(), replicas: 0, held: held(2) };
        assert_eq!(defects(&seen), Vec::<String>::new());
        for spoil in [
            |s: &mut Seen| s.workloads[0].held = None,
            |s: &mut Seen| s.workloads[0].held = Some("{}".into()),
            |s: &mut Seen| s.workloads[0].name = "StatefulSet db".into(),
            |s: &mut Seen| s.workloads[0].replicas = 2,
            |s: &mut Seen| s.object["status"]["members"][1]["quiesce"]["state"] = json!("Resumed"),
            |s: &mut Seen| s.object["status"]["members"][1]["stats"][0]["phase"] = json!("Succeeded"),
            |s: &mut Seen| s.object["status"]["members"][1]["stats"][0]["unwritten"] = json!(1),
        ] {
            let mut seen = failed("DataCorrupt", vec![Fault::PackCut]);
            seen.object["status"]["members"][1]["quiesce"] =
                json!({ "ref": { "kind": "Deployment", "name": "web" }, "state": "Held", "replicas": 2 });
            seen.object["status"]["members"][1]["stats"][0]["phase"] = json!("Failed");
            seen.workloads[0] = Workload { name: "Deployment web".into(), replicas: 0, held: held(2) };
            spoil(&mut seen);
            one(&seen, "WORKLOAD");
        }
    }
}
