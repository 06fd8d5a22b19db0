//! Executes runs, several side by side, and checks what is left when all are over.

use lifeboat::names::annotation::HELD_DOWN;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{timeout, timeout_at};

use super::faults::{Fault, Plan, Planned, When, seed_of};
use super::field::{Came, Field, Ground, PATIENCE, REPLICAS, RUN};
use super::follow::{Following, follow};
use super::harness::{condition, eventually, phase};
use super::inject::{SHARED, strike};
use super::judge::{Host, Seen, Workload, defects};
use super::states::{self, Course};
use super::watched::{Watched, processes};

/// How long a held process waits for the victim. A probe of the Repository may be held, and nothing else starts before
/// that probe ends.
const HELD: Duration = Duration::from_mins(1);

/// Result of a run.
struct Report {
    plan: Plan,
    /// The run's own faults that it met, each with the index of the state in which it came.
    met: Vec<(Planned, usize)>,
    /// Number of faults of the cluster during the run, the run's own among them.
    felt: usize,
    end: String,
    seconds: u64,
    /// A lock of a dead restic was removed by hand.
    unlocked: bool,
    /// Indexes of the states that its status showed.
    states: Vec<usize>,
    defects: Vec<String>,
}

/// Executes one run, from its empty targets to the removal of its last trace.
async fn run(ground: &Ground, plan: Plan) -> Report {
    let course = plan.course;
    let field = Rc::new(Field::new(ground, course).await);
    let watched = Rc::new(Watched::of(&field.site, course.kind()));
    let (send, mut versions) = mpsc::unbounded_channel();
    let _versions = follow(field.site.api(course.kind()), move |_, object| {
        drop(send.send(object.map_or(Value::Null, |o| serde_json::to_value(o).unwrap())));
    });
    let (over, is_over) = watch::channel(false);
    let met: Rc<RefCell<Vec<(Planned, usize)>>> = Rc::default();
    let go = |planned: Planned, rank: usize| {
        let (field, watched, is_over, met) = (field.clone(), watched.clone(), is_over.clone(), met.clone());
        spawn_local(async move {
            let held = matches!(planned.when, When::InData(_));
            if held {
                let mut over = is_over.clone();
                tokio::select! {
                    () = field.proxy.until_held() => {}
                    _ = over.wait_for(|over| *over) => return,
                }
            }
            let until = if held { soon(is_over) } else { is_over };
            if strike(&field, &watched, planned, until).await {
                met.borrow_mut().push((planned, rank));
            }
            if held {
                field.proxy.release();
            }
        })
    };

    let started = Instant::now();
    let (mut strikes, mut coming) = (vec![], plan.faults.clone());
    coming.retain(|planned| {
        if let When::InData(bytes) = planned.when {
            match course {
                Course::Backup => field.proxy.hold_after_sent(bytes),
                _ => field.proxy.hold_after(bytes),
            }
            strikes.push(go(*planned, 0));
        }
        matches!(planned.when, When::State(_))
    });
    field.start().await;
    let (mut shapes, mut seen, mut unlocked) = (vec![], vec![], false);
    let patience = tokio::time::Instant::now() + Duration::from_secs(PATIENCE);
    while let Ok(Some(object)) = timeout_at(patience, versions.recv()).await {
        let rank = course.rank(&object);
        coming.retain(|planned| {
            let due = matches!(planned.when, When::State(state) if state <= rank);
            if due {
                strikes.push(go(*planned, rank));
            }
            !due
        });
        let shape = states::shape(&object);
        if shapes.last() != Some(&shape) {
            shapes.push(shape);
            seen.push(rank);
        }
        if states::is_over(&object) {
            break;
        }
        if states::waits_for_a_lock(&object) && !unlocked {
            field.unlock().await;
            unlocked = true;
        }
    }
    let ended = Instant::now();
    over.send_replace(true);
    for strike in strikes {
        strike.await.unwrap();
    }

    // A fault at the very end may show its effect only now.
    let object = field.site.find(course.kind(), RUN).await.unwrap_or_default();
    if states::is_over(&object) {
        field.available().await;
    }
    let met = met.borrow().clone();
    let observed = Seen {
        course,
        met: met.iter().map(|(p, _)| p.fault).collect(),
        jobs: watched.jobs(),
        beside: watched.beside(),
        twice: watched.twice(),
        hosts: hosts(&field, ground, &object).await,
        workloads: workloads(&field).await,
        wanted: REPLICAS,
        sound: if course == Course::Backup { field.sound().await } else { Ok(()) },
        object,
    };
    let mut defects = defects(&observed);
    let reason = condition(&observed.object, "Stalled").1;
    if !defects.is_empty() {
        keep_traces(&field, &observed);
    }
    field.uncover();
    let leaving = field.clone();
    let left = spawn_local(async move { leaving.site.leaves_nothing_within(240).await });
    if left.await.is_err() {
        defects.push("LEAK: see what is left behind above".to_owned());
    }
    field.site.leave().await;
    std::fs::remove_dir_all(field.site.bucket()).unwrap();
    let felt = SHARED.lock().unwrap().iter().filter(|(at, _)| (started..=ended).contains(at)).count();
    Report {
        plan,
        met,
        felt,
        end: format!("{} {reason}", phase(&observed.object)).trim().to_owned(),
        seconds: ended.duration_since(started).as_secs(),
        unlocked,
        states: seen,
        defects,
    }
}

/// Reports the run as over after [`HELD`] at the latest.
fn soon(mut over: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (send, soon) = watch::channel(false);
    spawn_local(async move {
        let _ = timeout(HELD, over.wait_for(|over| *over)).await;
        send.send_replace(true);
    });
    soon
}

async fn workloads(field: &Field) -> Vec<Workload> {
    let mut all = vec![];
    for (kind, name) in &field.workloads {
        let now = field.site.get(kind, name).await;
        all.push(Workload {
            name: format!("{kind} {name}"),
            replicas: now["spec"]["replicas"].as_i64().unwrap_or(-1),
            held: now["metadata"]["annotations"][HELD_DOWN].as_str().map(str::to_owned),
        });
    }
    all
}

/// Final state of each host.
async fn hosts(field: &Field, ground: &Ground, object: &Value) -> Vec<Host> {
    let (mut all, members) = (vec![], states::members(object));
    for place in &field.places {
        let stats = states::stats_of(&members, place.member, place.host);
        let came = match field.course {
            Course::Backup => {
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                let snapshots = stats["snapshots"].as_array().cloned().unwrap_or_default();
                let snapshots: Vec<_> = snapshots.iter().map(|s| (text(&s["name"]), text(&s["path"]))).collect();
                if stats["phase"] == "Succeeded" { field.backed_up(place, &snapshots).await } else { Came::Untouched }
            }
            _ => place.restored(&ground.trees[place.host], stats["attempt"].as_i64() > Some(1)),
        };
        all.push(Host { member: place.member, name: place.host.to_owned(), came });
    }
    all
}

/// Writes to a file beside the cluster's logs what a look at the cluster would show.
fn keep_traces(field: &Field, seen: &Seen) {
    let site = &field.site;
    let path = site.state.join("logs").join(format!("{}.txt", site.namespace));
    let mut file = std::fs::File::create(&path).unwrap();
    writeln!(file, "{seen:#?}").unwrap();
    for words in [
        &["get", "jobs,pods", "-o", "yaml"][..],
        &["get", "events", "--sort-by=.metadata.creationTimestamp"],
        &["--namespace=lifeboat-system", "logs", "deploy/lifeboat", "--tail=-1"],
        &["--namespace=lifeboat-system", "logs", "deploy/lifeboat", "--tail=-1", "--previous"],
    ] {
        let out = site.kubectl_command(words).output().unwrap();
        writeln!(file, "--- {words:?}").unwrap();
        file.write_all(&out.stdout).unwrap();
    }
    println!("what there was to see is in {}", path.display());
}

/// Executes all runs, `beside` of them at a time, each in a thread that it may block. Returns their reports.
async fn all(ground: &Arc<Ground>, plans: Vec<Plan>, beside: usize) -> Vec<Report> {
    let count = plans.len();
    let waiting: Arc<Mutex<VecDeque<Plan>>> = Arc::new(Mutex::new(plans.into()));
    let (send, mut reports) = mpsc::unbounded_channel();
    for _ in 0..beside {
        let (waiting, ground, send) = (waiting.clone(), ground.clone(), send.clone());
        thread::spawn(move || {
            while let Some(plan) = { waiting.lock().unwrap().pop_front() } {
                let (ground, planned) = (ground.clone(), plan.clone());
                let came = thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    LocalSet::new().block_on(&runtime, run(&ground, planned))
                });
                drop(send.send(came.join().unwrap_or_else(|panic| not_judged(plan, &*panic))));
            }
        });
    }
    drop(send);
    let mut all = vec![];
    while let Some(report) = reports.recv().await {
        all.push(report);
        println!("{:3}/{count} {}", all.len(), line(&all[all.len() - 1]));
    }
    all
}

fn not_judged(plan: Plan, panic: &(dyn std::any::Any + Send)) -> Report {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    Report {
        plan,
        met: vec![],
        felt: 0,
        end: "?".to_owned(),
        seconds: 0,
        unlocked: false,
        states: vec![],
        defects: vec![format!("NOT JUDGED: {}", text.unwrap_or("a panic"))],
    }
}

fn line(report: &Report) -> String {
    let course = report.plan.course;
    let fault = |p: &Planned| {
        let came = report.met.iter().find(|(met, _)| met == p).map(|(_, rank)| *rank);
        match (came, p.when) {
            (None, _) => format!("{} (not met)", p.of(course)),
            (Some(rank), When::State(state)) if rank != state => {
                format!("{} (came at '{}')", p.of(course), course.state(rank))
            }
            _ => p.of(course),
        }
    };
    let faults: Vec<String> = report.plan.faults.iter().map(fault).collect();
    let verdict = if report.defects.is_empty() { "ok".to_owned() } else { report.defects.join("\n    ") };
    let unlocked = if report.unlocked { " and a dead lock removed by hand" } else { "" };
    format!(
        "seed {}, {course} [{}] and {} of the cluster in all: {} after {} s{unlocked}: {verdict}",
        report.plan.seed,
        faults.join("; "),
        report.felt,
        report.end,
        report.seconds
    )
}

/// Lists everything that a run has left in the cluster.
async fn clean(ground: &Ground) -> Vec<String> {
    let site = &ground.site;
    let mut left = vec![];
    let gone = eventually(180, async || {
        left.clear();
        for space in site.list("Namespace").await {
            let name = space["metadata"]["name"].as_str().unwrap();
            if name.starts_with("run-") {
                left.push(format!("Namespace {name}"));
            }
        }
        let group = site.control_group();
        let ours = |pods: &[Pod], pid| {
            let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default().replace('_', "-");
            pods.iter().any(|p| p.uid().is_some_and(|uid| group.contains(&uid)))
        };
        let pods: Api<Pod> = Api::all(site.client.clone());
        let pods = pods.list(&ListParams::default()).await.map(|l| l.items).unwrap_or_default();
        for name in ["restic", "lifeboat"] {
            let found = processes(name, |g| g.contains(&group));
            left.extend(found.iter().filter(|pid| !ours(&pods, **pid)).map(|pid| format!("process {name} {pid}")));
        }
        left.is_empty().then_some(())
    });
    let gone = gone.await.is_some();
    if gone { vec![] } else { left }
}

/// How the containers of the operator ended, and how often.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<BTreeMap<String, i32>>>);

impl Ends {
    fn watch(ground: &Ground) -> (Self, Following) {
        let ends = Self::default();
        let all = ends.0.clone();
        let following =
            follow(Api::<Pod>::namespaced(ground.site.client.clone(), "lifeboat-system"), move |uid, pod| {
                for status in pod.and_then(|p| p.status.as_ref()?.container_statuses.as_ref()).into_iter().flatten() {
                    let states = [status.state.as_ref(), status.last_state.as_ref()];
                    for ended in states.into_iter().flatten().filter_map(|s| s.terminated.as_ref()) {
                        let id = ended.container_id.clone().unwrap_or_else(|| uid.to_owned());
                        all.lock().unwrap().insert(id, ended.exit_code);
                    }
                }
            });
        (ends, following)
    }

    fn codes(&self) -> BTreeMap<i32, usize> {
        let mut codes = BTreeMap::new();
        self.0.lock().unwrap().values().for_each(|code| *codes.entry(*code).or_default() += 1);
        codes
    }
}

/// Prints the results of all runs, and fails if anything was wrong.
async fn conclude(ground: &Ground, ends: &Ends, reports: &[Report], what: &str, began: Instant) {
    let mut by_fault: BTreeMap<Fault, (usize, usize, usize)> = BTreeMap::new();
    for report in reports {
        for (planned, _) in &report.met {
            let entry = by_fault.entry(planned.fault).or_default();
            entry.0 += 1;
            entry.1 += usize::from(report.end == "Succeeded");
            entry.2 += usize::from(report.end.starts_with("Failed"));
        }
    }
    println!("\n| Fault | met | then Succeeded | then Failed |\n|---|---|---|---|");
    for (fault, (met, succeeded, failed)) in by_fault {
        println!("| {fault:?} | {met} | {succeeded} | {failed} |");
    }
    println!("\n| Course | runs | Succeeded | Failed | with defects |\n|---|---|---|---|---|");
    for course in Course::ALL {
        let of = |is: &dyn Fn(&Report) -> bool| reports.iter().filter(|r| r.plan.course == course && is(r)).count();
        let (all, succeeded) = (of(&|_| true), of(&|r| r.end == "Succeeded"));
        let (failed, wrong) = (of(&|r| r.end.starts_with("Failed")), of(&|r| !r.defects.is_empty()));
        println!("| {course} | {all} | {succeeded} | {failed} | {wrong} |");
    }
    let mut seconds: Vec<u64> = reports.iter().map(|r| r.seconds).collect();
    seconds.sort_unstable();
    let ended = |phase: &str| reports.iter().filter(|r| r.end.starts_with(phase)).count();
    let wrong: Vec<&Report> = reports.iter().filter(|r| !r.defects.is_empty()).collect();
    println!(
        "\n{what}: {} runs, {} Succeeded, {} Failed with a true reason or a defect, {} with defects, {} faults of the cluster, \
         {} dead locks removed by hand; \
         a run took {} s in the middle and {} s at most; all of it {} s",
        reports.len(),
        ended("Succeeded"),
        ended("Failed"),
        wrong.len(),
        SHARED.lock().unwrap().len(),
        reports.iter().filter(|r| r.unlocked).count(),
        seconds[seconds.len() / 2],
        seconds[seconds.len() - 1],
        began.elapsed().as_secs()
    );
    println!("containers of the operator that ended, by exit code: {:?}", ends.codes());
    for report in &wrong {
        println!("DEFECT {}\n  again, alone: make chaos RUNS=1 SEED={}", line(report), report.plan.seed);
    }
    let left = clean(ground).await;
    assert!(left.is_empty(), "left in the cluster: {left:?}");
    assert!(wrong.is_empty(), "{} of {} runs have defects", wrong.len(), reports.len());
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().filter(|v| !v.is_empty()).map_or(default, |v| v.parse().expect(name))
}

/// Proves: A04, A05, C01, C02, C04, C05, C06, C14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a node: make chaos"]
async fn random_faults_at_random_states() {
    let began = Instant::now();
    let (runs, seed, beside) = (setting("RUNS", 20), setting("SEED", 1), setting("BESIDE", 8));
    let ground = Arc::new(Ground::prepare().await);
    let (ends, _following) = Ends::watch(&ground);
    let plans = (0..runs).map(|n| Plan::random(seed_of(seed, n))).collect();
    let reports = all(&ground, plans, usize::try_from(beside).unwrap()).await;
    conclude(&ground, &ends, &reports, &format!("RUNS={runs} SEED={seed}"), began).await;
    if setting("EVERY_COURSE", 0) == 1 {
        let met = |course| reports.iter().any(|r| r.plan.course == course && !r.met.is_empty());
        let not_met: Vec<Course> = Course::ALL.into_iter().filter(|c| !met(*c)).collect();
        assert!(not_met.is_empty(), "no run of these met a fault: {not_met:?}");
    }
}

/// Proves: C01, C05, C14.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a node: make chaos-states"]
async fn kill_9_at_every_state_change() {
    let began = Instant::now();
    let ground = Arc::new(Ground::prepare().await);
    let (ends, _following) = Ends::watch(&ground);
    let course = Course::InOrder;
    let calm = all(&ground, vec![Plan { seed: 0, course, faults: vec![] }], 1).await;
    assert_eq!(calm[0].states, (0..=course.over()).collect::<Vec<_>>(), "these are not all that status goes through");
    let beside = usize::try_from(setting("BESIDE", 8)).unwrap();
    let reports = all(&ground, Plan::every_state(), beside).await;
    let exact = reports.iter().flat_map(|r| &r.met).filter(|(p, rank)| p.when == When::State(*rank)).count();
    println!("{exact} of {} came in the very state that they were meant for", reports.len());
    let not_met: Vec<String> = reports.iter().filter(|r| r.met.is_empty()).map(line).collect();
    assert!(not_met.is_empty(), "no victim was there: {not_met:#?}");
    conclude(&ground, &ends, &reports, "every state", began).await;
}
