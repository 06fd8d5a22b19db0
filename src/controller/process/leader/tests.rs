//! The decision alone, candidates against each other in a simulation, and the real code against a Lease in memory.

use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response};
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::controller::apply::fence::NotLeading;
use crate::controller::process::leader::*;

fn record(holder: &str, seconds: i32) -> LeaseSpec {
    LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(seconds), ..LeaseSpec::default() }
}

#[test]
fn a_free_lease_is_taken_and_an_own_one_held() {
    assert_eq!(decide(None, "a", Duration::ZERO), Decision::Take);
    assert_eq!(decide(Some(&LeaseSpec::default()), "a", Duration::ZERO), Decision::Take);
    assert_eq!(decide(Some(&record("", 8)), "a", Duration::ZERO), Decision::Take);
    assert_eq!(decide(Some(&record("a", 8)), "a", Duration::ZERO), Decision::Hold);
}

#[test]
fn the_timing_leaves_a_leader_time_to_stop_and_a_successor_ten_seconds() {
    let t = Timing::default();
    assert!(t.renew + t.request * 2 <= t.give_up && t.give_up < t.lease);
    assert!(t.lease + t.retry < Duration::from_secs(10));
    assert!(t.retry <= Duration::from_secs(2));
}

proptest! {
    #[test]
    fn a_lease_of_another_is_taken_when_it_is_old_and_not_before(seconds in -5i32..2000, unchanged in 0u64..100_000) {
        let unchanged = Duration::from_millis(unchanged);
        let lease = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LEASE_MAX);
        match decide(Some(&record("b", seconds)), "a", unchanged) {
            Decision::Take => prop_assert!(unchanged >= lease),
            Decision::Wait(left) => prop_assert!(left > Duration::ZERO && left + unchanged == lease),
            Decision::Hold => prop_assert!(false, "held a lease of another"),
        }
    }

    #[test]
    fn a_claim_counts_transitions_between_holders_only(holder in "[ab]?", transitions in 0i32..5) {
        let before = LeaseSpec { lease_transitions: Some(transitions), ..record(&holder, 8) };
        let after = claim(Some(&before), "a", Duration::from_secs(8), Timestamp::UNIX_EPOCH);
        prop_assert_eq!(after.lease_transitions, Some(if holder == "a" { transitions } else { transitions + 1 }));
        prop_assert!(!same_term(Some(&before), Some(&after)), "a claim begins a term");
    }
}

/// A candidate of the simulation: what it saw and since when, a write in progress, and until when it leads.
#[derive(Clone, Default)]
struct Sim {
    seen: Option<(LeaseSpec, u64, u64)>,
    sent: Option<(u64, u64)>,
    until: u64,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Read, decide, and send a write if the decision requires one.
    Look,
    /// The write that was sent reaches the API server, and its answer comes back.
    Arrive,
    /// The write reaches the API server, but its answer is lost.
    Lost,
    /// The process dies and starts again under the same name.
    Crash,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever the order and the delays of reads, writes, lost answers and crashes: there are never two leaders.
    #[test]
    fn there_are_never_two_leaders(acts in prop::collection::vec(
        (0u64..4, 0usize..3, prop_oneof![4 => Just(Act::Look), 4 => Just(Act::Arrive), 1 => Just(Act::Lost), 1 => Just(Act::Crash)]),
        1..120,
    )) {
        let (mut now, mut version, mut store) = (0u64, 1u64, LeaseSpec::default());
        let mut all = vec![Sim::default(); 3];
        for (wait, who, act) in acts {
            now += wait;
            let us = format!("c{who}");
            let me = &mut all[who];
            match act {
                Act::Look => {
                    if me.seen.as_ref().is_none_or(|(s, v, _)| *s != store || *v != version) {
                        me.seen = Some((store.clone(), version, now));
                    }
                    let since = me.seen.as_ref().map_or(now, |s| s.2);
                    if !matches!(decide(Some(&store), &us, Duration::from_secs(now - since)), Decision::Wait(_)) {
                        me.sent = Some((version, now));
                    }
                }
                Act::Arrive | Act::Lost => {
                    let sent = me.sent.take();
                    if let Some((_, sent)) = sent.filter(|(read, _)| *read == version) {
                        store = claim(Some(&store), &us, Timing::default().lease, Timestamp::UNIX_EPOCH);
                        version += 1;
                        if matches!(act, Act::Arrive) {
                            me.until = sent + Timing::default().give_up.as_secs();
                        }
                    }
                }
                Act::Crash => *me = Sim::default(),
            }
            let leaders = all.iter().filter(|c| now < c.until).count();
            prop_assert!(leaders <= 1, "{leaders} leaders at {now}");
        }
    }
}

/// One Lease behind the API, with the rule that matters: a PUT with an old resourceVersion is a conflict.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    down: Arc<Mutex<bool>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let method = request.method().clone();
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let (code, answer) = server.answer(&method, serde_json::from_slice(&body).ok());
                    let bytes = serde_json::to_vec(&answer).unwrap();
                    Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(Body::from(bytes)).unwrap())
                }
            }),
            "ns",
        )
    }

    fn answer(&self, method: &Method, body: Option<Value>) -> (u16, Value) {
        let refuse = |code: u16, reason: &str| {
            (
                code,
                json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code }),
            )
        };
        if *self.down.lock().unwrap() {
            return refuse(500, "InternalError");
        }
        let mut lease = self.lease.lock().unwrap();
        let version = |l: &Value| l["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        match (method.as_str(), lease.clone(), body) {
            ("GET", Some(found), _) => (200, found),
            ("GET" | "PUT", None, _) => refuse(404, "NotFound"),
            ("POST", Some(_), _) => refuse(409, "AlreadyExists"),
            ("PUT", Some(found), Some(new)) if version(&found) != version(&new) => refuse(409, "Conflict"),
            (_, found, Some(mut new)) => {
                let next = found.map_or(0, |f| version(&f).parse::<u64>().unwrap()) + 1;
                new["metadata"]["resourceVersion"] = json!(next.to_string());
                *lease = Some(new.clone());
                (200, new)
            }
            _ => refuse(400, "BadRequest"),
        }
    }

    fn holder(&self) -> Option<String> {
        self.lease.lock().unwrap().as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    async fn acquire(&self, identity: &str) -> Leader {
        let ms = Duration::from_millis;
        let timing = Timing { lease: ms(1000), renew: ms(60), give_up: ms(500), retry: ms(20), request: ms(200) };
        Leader::acquire_with(self.client(), "ns", "lifeboat", identity, timing).await
    }
}

const SOON: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_released_lease_is_taken_at_once() {
    let server = Server::default();
    let first = server.acquire("a").await;
    assert!(first.holds());
    let waiting = tokio::spawn({
        let server = server.clone();
        async move { server.acquire("b").await }
    });
    sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished() && first.holds(), "the lease is renewed");
    first.release().await;
    let second = timeout(SOON, waiting).await.expect("before the lease would expire").unwrap();
    assert!(second.holds());
    assert_eq!(server.holder().as_deref(), Some("b"));
}

#[tokio::test]
async fn a_silent_leader_is_replaced_when_its_lease_expires() {
    let server = Server::default();
    let first = server.acquire("a").await;
    drop(first);
    let before = Instant::now();
    let second = server.acquire("b").await;
    assert!(second.holds() && before.elapsed() >= Duration::from_secs(1));
    drop(second);
    timeout(SOON, server.acquire("b")).await.expect("a restarted container takes its own lease back");
}

#[tokio::test]
async fn a_leader_that_is_replaced_or_cut_off_knows_it() {
    let server = Server::default();
    let mut cut_off = server.acquire("a").await;
    *server.down.lock().unwrap() = true;
    timeout(Duration::from_millis(900), cut_off.lost()).await.expect("before a successor would take over");
    assert!(!cut_off.holds());

    *server.down.lock().unwrap() = false;
    let mut replaced = server.acquire("a").await;
    let usurper = server.acquire("a").await;
    timeout(SOON, replaced.lost()).await.expect("a term that is not its own ends it");
    assert!(usurper.holds());
}

#[tokio::test]
async fn a_change_that_is_no_election_is_borne() {
    let server = Server::default();
    let leader = server.acquire("a").await;
    if let Some(lease) = server.lease.lock().unwrap().as_mut() {
        lease["metadata"]["resourceVersion"] = json!("77");
        lease["metadata"]["annotations"] = json!({ "note": "by hand" });
    }
    sleep(SOON).await;
    assert!(leader.holds());
}

/// A leader that was stopped writes nothing when it continues after another replica took over.
#[tokio::test]
async fn who_leads_no_more_writes_nothing() {
    let server = Server::default();
    let leader = server.acquire("a").await;
    let fenced = leader.fence(&server.client());
    let leases: Api<Lease> = Api::namespaced(fenced.client(), "ns");
    let held = leases.get("lifeboat").await.unwrap();
    leases.replace("lifeboat", &PostParams::default(), &held).await.expect("who leads may write");

    // The renewals of the leader stop, as those of a frozen process do. It still has the Lease that it has read.
    *server.down.lock().unwrap() = true;
    sleep(Duration::from_millis(600)).await;
    *server.down.lock().unwrap() = false;
    let usurper = server.acquire("b").await;
    let (mut late, params) = (leases.get("lifeboat").await.expect("reading is no harm"), PostParams::default());
    late.spec.get_or_insert_default().holder_identity = Some("a".into());
    let refused = leases.replace("lifeboat", &params, &late).await.unwrap_err();
    assert!(NotLeading::is(&refused), "{refused}");
    let refused = leases.delete("lifeboat", &kube::api::DeleteParams::default()).await.unwrap_err();
    assert!(NotLeading::is(&refused), "{refused}");
    assert!(usurper.holds());
    assert_eq!(server.holder().as_deref(), Some("b"));
}

#[test]
fn a_longer_lease_is_given_up_before_another_takes_it() {
    assert_eq!(format!("{:?}", Timing::of(Timing::default().lease)), format!("{:?}", Timing::default()));
    for seconds in [4, 8, 60] {
        let t = Timing::of(Duration::from_secs(seconds));
        assert!(t.renew + t.request <= t.give_up && t.give_up < t.lease && t.retry <= Duration::from_secs(1), "{t:?}");
    }
}
