//! The state that a cluster must have at the end, and the texts of its session.

use serde_json::Value;

use crate::api::common::AfterFailure;
use crate::plan::restore::held;
use crate::plan::restore::held_note::Note;
use crate::plan::restore::run::RestoreRun;
use crate::plan::restore::tests::workload::workload_of;
use crate::plan::restore::tests::world::World;

impl World {
    /// Runs passes until nothing more is to be done. Then the run is over, and everything is as before.
    pub fn settle(&mut self) {
        self.settle_but_for_rights();
        self.is_left_well();
    }

    /// The same, for runs that may leave grants behind.
    pub fn settle_but_for_rights(&mut self) {
        while self.advance() {}
    }

    /// Settles. For every write on the way, passes on a world in which the controller died before that write, also
    /// settled. With `again`, the next controller also died, before its own first write.
    pub fn settle_dying(&mut self, again: bool, mut each: impl FnMut(usize, World)) {
        loop {
            let before = self.clone();
            let more = self.advance();
            for write in before.writes..self.writes {
                let mut w = before.clone();
                w.crashes = if again { vec![write, write + 1] } else { vec![write] };
                w.settle();
                each(write, w);
            }
            if !more {
                break;
            }
        }
        self.is_left_well();
    }

    /// Whether a Job writes to a workload's volumes.
    pub fn is_restored_now(&self, workload: usize) -> bool {
        let (targets, running) = (self.run().targets(), self.jobs.running());
        let writes = |i: usize| running.iter().any(|key| key.starts_with(&format!("restore/{i}/")));
        (0..targets.len()).any(|i| workload_of(targets[i].as_ref()) == Some(workload) && writes(i))
    }

    pub fn is_left_well(&self) {
        let run = self.run();
        assert!(self.gone || run.state.is_final(), "stuck: {:#}", self.object["status"]);
        assert!(!run.id.held || self.gone, "the finalizer is off");
        assert_eq!(self.jobs.running(), Vec::<String>::new(), "nothing runs on");
        assert!(self.grants.there.is_empty(), "rights are left: {:?}", self.grants.there);
        for (index, w) in self.workloads.iter().enumerate().filter(|(i, _)| self.is_there(*i)) {
            // An earlier restore has left the workload down, and this restore has not restored all of it.
            let is_of_before = |n: &Note| n.uid != run.id.uid && self.is_said_to_be_left();
            if w.replicas == 0 && w.held.as_deref().is_some_and(|t| Note::read(t).is_ok_and(|n| is_of_before(&n))) {
                continue;
            }
            if !self.may_stay_down(index, &run) {
                assert_eq!((w.replicas, &w.held), (w.wanted, &None), "m{index} has its replicas back");
                continue;
            }
            let note = w.held.as_deref().map(|text| Note::read(text).unwrap());
            assert_eq!((w.replicas, note.map(|n| n.replicas)), (0, Some(w.wanted)), "m{index} stays down, and says so");
        }
    }

    fn is_said_to_be_left(&self) -> bool {
        let all = self.object["status"]["conditions"].as_array().into_iter().flatten();
        let mut texts = all.filter_map(|c| c["message"].as_str());
        texts.any(|text| text.contains("This restore did not restore "))
    }

    /// Whether data of a workload may be half restored, so that it stays at zero.
    fn may_stay_down(&self, index: usize, run: &RestoreRun) -> bool {
        let w = &self.workloads[index];
        let shares = |i: usize| w.claim.is_some() && self.workloads.get(i).is_some_and(|other| other.claim == w.claim);
        let of = |i: &usize| workload_of(run.targets()[*i].as_ref()) == Some(index) || shares(*i);
        let half = |i: usize| {
            let spec = run.members.get(i).and_then(|m| m.target.as_ref()).and_then(|t| t.after_failure);
            let stats = run.state.members.get(i).map_or(&[][..], |m| &m.stats);
            spec != Some(AfterFailure::ScaleBack)
                && stats.iter().any(|h| {
                    let whole = self.jobs.done.contains(&format!("restore/{i}/{}", h.hostname));
                    // If the session is gone, no status records what its Jobs answered.
                    held::is_half(h) && !(self.gone && whole)
                })
        };
        w.is_scalable() && (0..run.targets().len()).filter(of).any(half)
    }

    pub fn phase(&self) -> String {
        self.object["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    pub fn members(&self) -> Vec<String> {
        let phases = |m: &Value| m["phase"].as_str().unwrap().to_owned();
        self.object["status"]["members"].as_array().unwrap().iter().map(phases).collect()
    }

    /// Message of a condition.
    pub fn condition_text(&self, type_: &str) -> String {
        let all = self.object["status"]["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == type_).map(|c| c["message"].as_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// Status and reason of a condition.
    pub fn condition(&self, type_: &str) -> (String, String) {
        let all = self.object["status"]["conditions"].as_array().unwrap();
        let found = all.iter().find(|c| c["type"] == type_).unwrap_or_else(|| panic!("no {type_} in {all:?}"));
        (found["status"].as_str().unwrap().into(), found["reason"].as_str().unwrap().into())
    }
}
