use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::channel::mpsc::{UnboundedSender, unbounded};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use tokio::sync::Semaphore;

use super::*;

fn named(name: &str) -> ObjectRef<ConfigMap> {
    ObjectRef::new(name).within("n")
}

/// A queue over objects `0` to `count`, and the sender of its requests.
fn queue(count: usize) -> (Queue<ConfigMap>, UnboundedSender<ObjectRef<ConfigMap>>) {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for n in 0..count {
        let mut object = ConfigMap::default();
        (object.metadata.name, object.metadata.namespace) = (Some(n.to_string()), Some("n".into()));
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    let (ask, asked) = unbounded();
    // The store ends with its writer.
    let held = asked.map(move |object| {
        let _ = &writer;
        object
    });
    (Queue::new(store).on(held), ask)
}

/// Lets every task that can continue do so.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_is_reconciled_at_once_and_again_if_it_comes_meanwhile() {
    let (queue, ask) = queue(1);
    let (gate, log) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(vec![])));
    let (open, seen) = (gate.clone(), log.clone());
    let running = tokio::spawn(queue.run(std::future::ready(()), move |object| {
        let (open, seen) = (open.clone(), seen.clone());
        async move {
            seen.lock().unwrap().push(object.name_any());
            open.acquire().await.unwrap().forget();
            Requeue::OnChange
        }
    }));
    ask.unbounded_send(named("0")).unwrap();
    settle().await;
    assert_eq!(log.lock().unwrap().len(), 1);
    for _ in 0..3 {
        ask.unbounded_send(named("0")).unwrap();
    }
    settle().await;
    assert_eq!(log.lock().unwrap().len(), 1, "never two at a time");
    gate.add_permits(9);
    settle().await;
    assert_eq!(log.lock().unwrap().len(), 2, "once more for all of them");
    // An object that does not exist is not reconciled.
    ask.unbounded_send(named("7")).unwrap();
    settle().await;
    assert_eq!(log.lock().unwrap().len(), 2);
    drop(ask);
    running.await.unwrap();
}

#[test]
fn who_asks_for_it_comes_back_and_a_change_comes_first() {
    let (mut turns, began) = (Turns::<ConfigMap>::default(), Instant::now());
    let at = |seconds: u64| began + Duration::from_secs(seconds);
    let reconciled = |turns: &mut Turns<ConfigMap>, now: u64| {
        turns.wake(at(now));
        let mut all = vec![];
        while let Some(object) = turns.next() {
            turns.done(&object, Requeue::After(Duration::from_secs(10)), at(now));
            all.push(object.name);
        }
        all
    };
    turns.ask(named("0"));
    turns.ask(named("1"));
    assert_eq!(reconciled(&mut turns, 0), ["0", "1"]);
    assert_eq!(turns.first_due(), Some(at(10)));
    turns.ask(named("1"));
    assert_eq!(reconciled(&mut turns, 4), ["1"]);
    assert_eq!(reconciled(&mut turns, 9), [""; 0]);
    assert_eq!(reconciled(&mut turns, 10), ["0"], "what was due with it is not due any more");
    assert_eq!(turns.first_due(), Some(at(14)));
    assert_eq!(reconciled(&mut turns, 30), ["1", "0"], "in the order of their times");
}

#[tokio::test]
async fn no_more_than_so_many_at_once_and_none_before_it_is_ready() {
    let (queue, ask) = queue(3 * CONCURRENCY);
    let (gate, now, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (ready, is_ready) = tokio::sync::oneshot::channel::<()>();
    let (open, running, peak) = (gate.clone(), now.clone(), most.clone());
    let _running = tokio::spawn(queue.run(async { is_ready.await.unwrap() }, move |_| {
        let (open, running, peak) = (open.clone(), running.clone(), peak.clone());
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            open.acquire().await.unwrap().forget();
            running.fetch_sub(1, Ordering::SeqCst);
            Requeue::OnChange
        }
    }));
    for n in 0..3 * CONCURRENCY {
        ask.unbounded_send(named(&n.to_string())).unwrap();
    }
    settle().await;
    assert_eq!(now.load(Ordering::SeqCst), 0, "not ready");
    ready.send(()).unwrap();
    settle().await;
    assert_eq!(now.load(Ordering::SeqCst), CONCURRENCY);
    gate.add_permits(3 * CONCURRENCY);
    settle().await;
    assert_eq!((now.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (0, CONCURRENCY));
    assert_eq!(gate.available_permits(), 0, "each had its turn");
}

#[tokio::test]
#[should_panic(expected = "a defect")]
async fn a_panic_is_not_swallowed() {
    let (queue, ask) = queue(1);
    ask.unbounded_send(named("0")).unwrap();
    queue.run(std::future::ready(()), async |_| panic!("a defect")).await;
}

#[test]
fn a_time_that_no_clock_has_is_never() {
    let mut turns: Turns<ConfigMap> = Turns::default();
    turns.ask(named("0"));
    let object = turns.next().unwrap();
    turns.done(&object, Requeue::After(Duration::MAX), Instant::now());
    assert!(turns.first_due().is_none() && turns.stand.is_empty());
}
