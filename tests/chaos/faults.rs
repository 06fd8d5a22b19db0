//! The possible faults, and the plan of a run, which its seed determines. Nothing here touches a cluster.

use std::collections::BTreeSet;

use super::states::Course;

/// A fault. A fault of the cluster affects all runs in progress; any other fault affects a single run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Fault {
    /// SIGKILL of the processes of all replicas of the operator.
    Operator,
    /// SIGKILL of the process of one replica of the operator, whether or not it is the leader.
    OneOperator,
    /// The operator's clock is an hour ahead for a while. Its pods are replaced at the start and at the end of it.
    OperatorAhead,
    /// No operator runs for a while (Deployment scaled to zero and back).
    OperatorAway,
    Kubelet,
    Containerd,
    ApiServer,
    /// Stopped for a while.
    ApiServerAway,
    /// SIGSTOP for a while: connections stay open, but requests get no answer.
    ApiServerSilent,
    Etcd,
    ControllerManager,
    Scheduler,
    /// SIGKILL of the S3 server.
    Store,
    StoreAway,
    StoreSilent,
    /// SIGKILL of the agent, process 1 of a Job's container.
    Agent,
    /// SIGKILL of restic below the agent.
    Restic,
    PodDeleted,
    PodEvicted,
    JobDeleted,
    /// Packets of a Job's pod are dropped for a while.
    NetworkCut,
    /// The store refuses new connections of this run for a while, and closes the open ones.
    StoreRefuses,
    PackDamaged,
    PackMissing,
    PackCut,
    IndexDamaged,
    IndexMissing,
    IndexCut,
    SnapshotMissing,
    /// The volume of the last member has less room than its data needs.
    DiskFull,
}

use Fault::{
    Agent, ApiServer, ApiServerAway, ApiServerSilent, Containerd, ControllerManager, DiskFull, Etcd, IndexCut,
    IndexDamaged, IndexMissing, JobDeleted, Kubelet, NetworkCut, OneOperator, Operator, OperatorAhead, OperatorAway,
    PackCut, PackDamaged, PackMissing, PodDeleted, PodEvicted, Restic, Scheduler, SnapshotMissing, Store, StoreAway,
    StoreRefuses, StoreSilent,
};

/// Kills that are made at every state change.
pub const VICTIMS: [Fault; 5] = [Operator, Agent, Kubelet, Containerd, ApiServer];
/// Faults of the cluster.
const SHARED: [Fault; 15] = [
    Operator,
    OneOperator,
    OperatorAhead,
    OperatorAway,
    Kubelet,
    Containerd,
    ApiServer,
    ApiServerAway,
    ApiServerSilent,
    Etcd,
    ControllerManager,
    Scheduler,
    Store,
    StoreAway,
    StoreSilent,
];
/// Faults of a single run that a retry heals.
const OWN: [Fault; 7] = [Agent, Restic, PodDeleted, PodEvicted, JobDeleted, NetworkCut, StoreRefuses];
/// Faults of a single run that no retry heals.
const LASTING: [Fault; 8] =
    [PackDamaged, PackMissing, PackCut, IndexDamaged, IndexMissing, IndexCut, SnapshotMissing, DiskFull];
/// Number of deaths of its pod that a step is allowed (see docs/jobs.md, "Retries").
const DEATHS: usize = 3;

/// When a fault comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// As soon as status shows this state, or a later one.
    State(usize),
    /// When this many bytes have come from the store, or gone to it in a backup: a Job then waits for the next bytes.
    InData(u64),
}

/// A fault of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    pub fault: Fault,
    pub when: When,
    /// Duration, for a fault that has one.
    pub seconds: u64,
}

impl Planned {
    /// The fault as text for people.
    pub fn of(&self, course: Course) -> String {
        match self.when {
            When::State(n) => format!("{:?} at '{}'", self.fault, course.state(n)),
            When::InData(bytes) => format!("{:?} after {bytes} bytes", self.fault),
        }
    }
}

/// The course of a run, and all its faults.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// `make chaos RUNS=1 SEED=<it>` makes the same plan again.
    pub seed: u64,
    pub course: Course,
    pub faults: Vec<Planned>,
}

/// The seed of a run. The first run has the seed that was given.
pub fn seed_of(seed: u64, run: u64) -> u64 {
    if run == 0 { seed } else { Dice(seed.wrapping_add(run.wrapping_mul(0x9e37_79b9_7f4a_7c15))).next() >> 16 }
}

impl Plan {
    /// One to three faults, of which at most one is lasting. A backup into a repository that is being damaged proves
    /// nothing: restic adds to the repository and has no reason to read the damaged files.
    pub fn random(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let course = dice.one_of(&Course::ALL);
        let mut faults: Vec<Planned> = vec![];
        for _ in 0..=dice.below(3) {
            let lasts = course == Course::Backup || faults.iter().any(|p| LASTING.contains(&p.fault));
            let fault = match dice.below(10) {
                0..=3 => dice.one_of(&SHARED),
                4..=6 => dice.one_of(&OWN),
                _ if lasts => dice.one_of(&OWN),
                _ => dice.one_of(&LASTING),
            };
            let in_data = OWN.contains(&fault) && dice.below(2) == 0;
            let held = faults.iter().any(|p| matches!(p.when, When::InData(_)));
            let when = if in_data && !held {
                When::InData(dice.below(1_600_000))
            } else {
                When::State(usize::try_from(dice.below(course.over() as u64)).unwrap())
            };
            faults.push(Planned { fault, when, seconds: 3 + dice.below(9) });
        }
        Self { seed, course, faults }
    }

    /// One plan for each victim at each state of a restore in order. A Job's process is not killed after the last Job.
    pub fn every_state() -> Vec<Self> {
        let (course, over) = (Course::InOrder, Course::InOrder.over());
        let all = (0..=over).flat_map(|state| VICTIMS.map(|fault| (state, fault)));
        let possible = all.filter(|(state, fault)| *state != over || *fault != Agent);
        let plan = |(state, fault)| Planned { fault, when: When::State(state), seconds: 0 };
        possible.map(|one| Self { seed: 0, course, faults: vec![plan(one)] }).collect()
    }
}

/// Reasons with which a run may fail after these faults of its own. If empty, the run must succeed.
pub fn reasons(met: &[Fault]) -> BTreeSet<&'static str> {
    let of = |fault: &Fault| -> &[&'static str] {
        match fault {
            PackDamaged | PackMissing | PackCut | IndexDamaged | IndexMissing | IndexCut => &["DataCorrupt"],
            SnapshotMissing => &["SnapshotNotFound", "DataCorrupt"],
            DiskFull => &["NoSpace"],
            _ => &[],
        }
    };
    let mut reasons: BTreeSet<&str> = met.iter().flat_map(of).copied().collect();
    if met.iter().filter(|f| [Agent, Restic].contains(*f)).count() >= DEATHS {
        reasons.extend(["OutcomeLost", "OOMKilled"]);
    }
    reasons
}

/// splitmix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_another_seed_another() {
        let plans: Vec<Plan> = (0..200).map(|n| Plan::random(seed_of(7, n))).collect();
        assert_eq!(plans, (0..200).map(|n| Plan::random(seed_of(7, n))).collect::<Vec<_>>());
        assert_eq!(Plan::random(plans[5].seed), plans[5], "a run is replayed by its own seed");
        assert_eq!(seed_of(plans[5].seed, 0), plans[5].seed);
        let seeds: BTreeSet<u64> = plans.iter().map(|p| p.seed).collect();
        assert_eq!(seeds.len(), plans.len());
    }

    #[test]
    fn every_fault_comes_and_no_run_has_two_that_last() {
        let plans: Vec<Plan> = (0..200).map(|n| Plan::random(seed_of(1, n))).collect();
        let met: BTreeSet<Fault> = plans.iter().flat_map(|p| &p.faults).map(|p| p.fault).collect();
        let all: BTreeSet<Fault> = SHARED.into_iter().chain(OWN).chain(LASTING).collect();
        assert_eq!(met, all);
        for plan in &plans {
            assert!((1..=3).contains(&plan.faults.len()));
            assert!(plan.faults.iter().filter(|p| LASTING.contains(&p.fault)).count() <= 1, "{plan:?}");
            assert!(plan.faults.iter().filter(|p| matches!(p.when, When::InData(_))).count() <= 1, "{plan:?}");
        }
        for course in Course::ALL {
            let of_it: Vec<&Plan> = plans.iter().filter(|p| p.course == course).collect();
            assert!(of_it.len() > 50, "{course}: {}", of_it.len());
            let lasting = of_it.iter().flat_map(|p| &p.faults).any(|p| LASTING.contains(&p.fault));
            assert_eq!(lasting, course != Course::Backup);
        }
    }

    #[test]
    fn every_state_has_every_victim() {
        assert_eq!(Plan::every_state().len(), (Course::InOrder.over() + 1) * VICTIMS.len() - 1);
    }

    #[test]
    fn what_is_healed_by_trying_again_excuses_no_failure() {
        for fault in SHARED.into_iter().chain(OWN) {
            assert!(reasons(&[fault, fault]).is_empty(), "{fault:?}");
        }
        for fault in LASTING {
            assert!(!reasons(&[fault]).is_empty(), "{fault:?}");
        }
        assert!(reasons(&[Agent, Restic, Agent]).contains("OutcomeLost"));
    }
}
