//! One queue, and many sessions of several namespaces that reconcile in any order.

use proptest::prelude::*;

use crate::plan::repository::slots::queue::*;

fn claim(namespace: usize, n: usize) -> Claim {
    Claim {
        kind: "RestoreSession".into(),
        namespace: format!("n{namespace}"),
        name: format!("s{n}"),
        created: Timestamp::from_second(i64::try_from(n / 3).unwrap()).unwrap(),
        uid: format!("u{n:03}"),
        wants: true,
        leaves: false,
    }
}

fn one() -> Work {
    Work { places: 1, ..Work::default() }
}

fn room(queue: &Queue, who: &Claim, most: usize) -> Room {
    queue.room(&who.namespace, who.created, &who.uid, most)
}

/// The queue of a Repository in namespace `n0`.
fn queue(all: &[Claim]) -> Queue {
    let mut queue = Queue::of("n0");
    all.iter().for_each(|c| queue.enter(c.clone(), Work::default()));
    queue
}

/// The result of [`Queue::room`], computed from all waiting sessions and the Jobs that `me` would create, in their
/// order.
fn searched(queue: &Queue, me: &Claim, most: usize) -> usize {
    let mut all: Vec<(usize, Order, bool)> = vec![];
    for (namespace, line) in &queue.lines {
        let others = line.iter().filter(|order| **order != me.order());
        // A session that comes later in the same namespace waits until `me` has what it wants.
        let others: Vec<_> = others.filter(|o| *namespace != me.namespace || **o < me.order()).collect();
        let levels = others.iter().enumerate().map(|(nth, order)| (queue.level(namespace, nth, most), order));
        all.extend(levels.map(|(level, order)| (level, (*order).clone(), false)));
    }
    let own = all.iter().filter(|(_, order, _)| queue.sessions[&order.1].0.namespace == me.namespace).count();
    all.extend((0..most).map(|nth| (queue.level(&me.namespace, own + nth, most), me.order(), true)));
    if queue.keeps_one(most) {
        all.push((0, (Timestamp::MIN, String::new()), me.namespace == queue.home));
    }
    all.sort();
    let free = most.saturating_sub(queue.used);
    all.iter().take(free).filter(|(_, _, mine)| *mine).count()
}

proptest! {
    /// Whatever order the sessions reconcile in, and however many Jobs each wants: the limit holds, and all get their
    /// turn.
    /// Proves: C13.
    #[test]
    fn any_number_of_sessions_never_has_more_jobs_than_may_be(
        sessions in prop::collection::vec((0usize..5, 1usize..4), 1..50), most in 1usize..20,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..300),
    ) {
        let mut open: Vec<(Claim, usize)> = sessions.iter().enumerate().map(|(n, (ns, jobs))| (claim(*ns, n), *jobs)).collect();
        let mut queue = queue(&open.iter().map(|(c, _)| c.clone()).collect::<Vec<_>>());
        let step = |queue: &mut Queue, open: &mut Vec<(Claim, usize)>, at: usize| -> Result<(), TestCaseError> {
            let (me, wants) = open[at].clone();
            let room = room(queue, &me, most);
            let has = queue.sessions[&me.uid].1.places;
            if has > 0 {
                queue.leave(&me.uid);
                open.remove(at);
            } else if room.free > 0 {
                prop_assert_eq!(room.free, searched(queue, &me, most), "a search of all says the same");
                queue.works(&me.uid, Work { places: wants.min(room.free), ..Work::default() });
            }
            prop_assert!(queue.used() <= most);
            let held: usize = open.iter().map(|(c, _)| queue.sessions[&c.uid].1.places).sum();
            prop_assert_eq!(queue.used(), held);
            Ok(())
        };
        for pick in order {
            if open.is_empty() {
                break;
            }
            let at = pick.index(open.len());
            step(&mut queue, &mut open, at)?;
        }
        // Every remaining session gets its turn: the next sessions continue, and sessions that continued end.
        for _ in 0..2 * sessions.len() {
            let next: Vec<String> = queue.first(most).iter().map(|c| c.uid.clone()).collect();
            prop_assert!(queue.used() > 0 || !next.is_empty() || open.is_empty());
            for at in (0..open.len()).rev() {
                if next.contains(&open[at].0.uid) || queue.sessions[&open[at].0.uid].1.places > 0 {
                    step(&mut queue, &mut open, at)?;
                }
            }
        }
        prop_assert!(open.is_empty(), "{} never had a turn", open.len());
        prop_assert!(queue.is_empty() && queue.held.is_empty() && queue.lines.is_empty());
    }

    /// Whatever number of sessions each namespace has, and whichever session reconciles first: a waiting namespace
    /// holds at most one slot fewer than any other.
    #[test]
    fn who_waits_holds_no_fewer_than_others(
        counts in prop::collection::vec(1usize..30, 1..6), most in 2usize..20, seed in any::<u64>(),
    ) {
        let of = |ns: usize, count: usize| (0..count).map(move |n| claim(ns, ns * 100 + n));
        let all: Vec<Claim> = counts.iter().enumerate().flat_map(|(ns, count)| of(ns, *count)).collect();
        let mut queue = queue(&all);
        let mut looking = all.clone();
        looking.sort_by_key(|c| c.uid.bytes().fold(seed, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b))));
        for who in looking.iter().chain(&looking) {
            if queue.sessions[&who.uid].1 == Work::default() && room(&queue, who, most).free > 0 {
                queue.works(&who.uid, one());
            }
        }
        prop_assert_eq!(queue.used(), most.min(all.len()));
        let highest = (0..counts.len()).map(|ns| queue.held(&format!("n{ns}"))).max().unwrap();
        for (ns, count) in counts.iter().enumerate() {
            let held = queue.held(&format!("n{ns}"));
            prop_assert!(held >= (highest - 1).max(1).min(*count) || most < counts.len(), "n{ns} holds {held}, another {highest}");
        }
    }
}

/// One namespace does not keep another from its slots, nor the Repository's own namespace from its first slot.
#[test]
fn a_namespace_that_came_first_does_not_take_all() {
    // Twenty sessions of n1 come first, then one of n2, and last one of n0, the namespace of the Repository.
    let all: Vec<Claim> = (0..20).map(|n| claim(1, n)).chain([claim(2, 40), claim(0, 50)]).collect();
    let mut queue = queue(&all);
    let [last_of_1, of_2, of_0] = [&all[19], &all[20], &all[21]];
    assert_eq!(room(&queue, of_0, 16), Room { free: 7, ahead: 0 });
    assert_eq!(room(&queue, of_2, 16), Room { free: 7, ahead: 2 }, "after one each of n0 and n1");
    assert_eq!(room(&queue, last_of_1, 16).free, 0);
    assert_eq!(queue.first(3).iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["s50", "s0", "s40"]);
    // A session of many hosts leaves the other sessions their slots.
    assert!(room(&queue, &all[0], 16).free <= 14);
    (0..14).for_each(|n| queue.works(&all[n].uid, one()));
    assert_eq!(room(&queue, &all[14], 16).free, 0, "both places left are the others'");
    queue.works(&of_2.uid, one());
    queue.works(&of_0.uid, one());
    assert_eq!((queue.used(), queue.is_short(16)), (16, true));
    assert_eq!(queue.holders(), [("n1", 14), ("n0", 1), ("n2", 1)]);
    // n1 holds more than its share: a slot that becomes free goes to a namespace that holds fewer.
    queue.enter(claim(2, 60), Work::default());
    queue.leave(&all[0].uid);
    assert_eq!(room(&queue, &all[14], 16).free, 0);
    assert_eq!(room(&queue, &claim(2, 60), 16).free, 1);
    queue.leave("u060");
    assert_eq!(room(&queue, &all[14], 16).free, 1, "what nobody else waits for goes to whoever does");
}

#[test]
fn one_place_is_kept_for_the_repositorys_own_namespace() {
    let all: Vec<Claim> = (0..20).map(|n| claim(1, n)).collect();
    let mut queue = queue(&all);
    (0..15).for_each(|n| queue.works(&all[n].uid, one()));
    assert_eq!(room(&queue, &all[15], 16), Room { free: 0, ahead: 16 });
    assert!(queue.is_short(16));
    let own = claim(0, 99);
    queue.enter(own.clone(), Work::default());
    assert_eq!(room(&queue, &own, 16), Room { free: 1, ahead: 15 });
    queue.works(&own.uid, one());
    assert_eq!(queue.used(), 16);
    // If there is only one slot, the oldest session gets it.
    let mut single = crate::plan::repository::slots::queue::tests::queue(&[claim(1, 0), claim(0, 9)]);
    assert_eq!(room(&single, &claim(1, 0), 1).free, 1);
    assert_eq!(room(&single, &claim(0, 9), 1).free, 0);
    single.leave("u000");
    assert_eq!(room(&single, &claim(0, 9), 1).free, 1);
}

#[test]
fn who_waits_for_something_else_keeps_no_place() {
    let all: Vec<Claim> = (0..3).map(|n| claim(0, n)).collect();
    let mut queue = queue(&all);
    assert_eq!(room(&queue, &all[2], 2), Room { free: 0, ahead: 2 });
    queue.enter(Claim { wants: false, ..all[0].clone() }, Work::default());
    assert_eq!(room(&queue, &all[2], 2), Room { free: 1, ahead: 1 });
    // A Job that cannot start holds no slot, and its session waits for none.
    queue.works("u001", Work { stuck: 1, ..Work::default() });
    assert_eq!(room(&queue, &all[2], 2), Room { free: 2, ahead: 0 });
    assert_eq!((queue.used(), queue.jobs()), (0, 1));
    queue.works("u001", one());
    assert_eq!((room(&queue, &all[2], 1).free, queue.jobs()), (0, 1), "it counts when it has started after all");
    queue.works("nobody", one());
    assert_eq!(queue.used(), 1, "only what is a session's counts");
    queue.enter(Claim { leaves: true, ..all[0].clone() }, Work::default());
    assert_eq!(queue.len(), 2);
    (0..3).for_each(|n| queue.leave(&all[n].uid));
    assert!(queue.is_empty());
}
