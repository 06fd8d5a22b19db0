//! Budget for the text that is kept of the objects of one namespace.
//!
//! Users fill a namespace with as many objects as its quota allows. Each namespace has a budget of bytes for each kind.
//! Of an object beyond the budget, only the parts that are needed to end it are kept. Small objects are not counted:
//! thousands of them are common. Other namespaces are not affected: each namespace has its own budget.

use std::collections::HashMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tracing::warn;

use crate::plan::seen::compact::{Keep, Kept};

/// Bytes that are kept of the objects of one kind and namespace.
pub const NAMESPACE_BYTES: usize = 8 * 1024 * 1024;
/// An object with at most this many bytes is not counted.
pub const SMALL: usize = 4 * 1024;

/// An object whose text is kept.
pub trait Counted: ResourceExt {
    /// Bytes that are kept of it.
    fn bytes(&self) -> usize;
    /// Whether the object was already let in, and is at work. Such an object is counted, but not cut.
    fn is_let_in(&self) -> bool {
        false
    }
    /// Keeps only the parts that are needed to end the object. With the object, its namespace would have `sum` bytes.
    fn cut(&mut self, sum: usize);
}

impl<K: Keep> Counted for Kept<K> {
    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
    fn cut(&mut self, sum: usize) {
        warn!(
            kind = %K::kind(&()), namespace = self.namespace(), name = self.name_any(), sum, allowed = NAMESPACE_BYTES,
            "an object is ignored: the objects of its namespace exceed the size limit"
        );
        self.forget();
    }
}

/// Bytes that each namespace has of one kind.
#[derive(Default)]
pub struct Budget {
    namespaces: Ledger,
    /// Objects that a list has reported so far. Objects that were deleted while the watch was closed are in no event.
    listed: Option<Ledger>,
}

/// Bytes by namespace.
type Ledger = HashMap<String, Namespace>;

#[derive(Default)]
struct Namespace {
    sum: usize,
    /// Bytes by uid.
    of: HashMap<String, usize>,
}

impl Budget {
    /// Follows a watch, and cuts objects beyond the budget.
    pub fn on_event<K: Counted>(&mut self, mut event: Event<K>) -> Event<K> {
        match &mut event {
            Event::Init => self.listed = Some(Ledger::new()),
            Event::Apply(object) | Event::InitApply(object) => self.weigh(object),
            Event::Delete(object) => put(&mut self.namespaces, object, 0),
            Event::InitDone => self.namespaces = self.listed.take().unwrap_or_default(),
        }
        event
    }

    fn weigh<K: Counted>(&mut self, object: &mut K) {
        // An object in no namespace belongs to an administrator.
        let Some(name) = object.namespace() else { return };
        let bytes = Some(object.bytes()).filter(|b| *b > SMALL).unwrap_or(0);
        let uid = object.uid().unwrap_or_default();
        let before = self.namespaces.get(&name).and_then(|n| n.of.get(&uid)).copied().unwrap_or(0);
        let now = self.listed.as_ref().unwrap_or(&self.namespaces);
        let sum = now.get(&name).map_or(0, |n| n.sum - n.of.get(&uid).copied().unwrap_or(0));
        // An object that was accepted before stays whole as long as it does not grow.
        let stays = bytes <= before || object.is_let_in();
        let with_it = sum + bytes;
        let bytes = if stays || with_it <= NAMESPACE_BYTES { bytes } else { 0 };
        if bytes == 0 && object.bytes() > SMALL {
            object.cut(with_it);
        }
        put(self.listed.as_mut().unwrap_or(&mut self.namespaces), object, bytes);
    }
}

fn put<K: Counted>(all: &mut Ledger, object: &K, bytes: usize) {
    let (name, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    if bytes == 0 && !all.contains_key(&name) {
        return;
    }
    let namespace = all.entry(name.clone()).or_default();
    let before = if bytes > 0 { namespace.of.insert(uid, bytes) } else { namespace.of.remove(&uid) };
    namespace.sum = namespace.sum - before.unwrap_or(0) + bytes;
    if namespace.of.is_empty() {
        all.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    const CUT: &str = "cut";

    impl Counted for ConfigMap {
        fn bytes(&self) -> usize {
            self.data.iter().flatten().map(|(_, v)| v.len()).sum()
        }
        fn is_let_in(&self) -> bool {
            self.immutable == Some(true)
        }
        fn cut(&mut self, sum: usize) {
            self.data = Some([(CUT.to_owned(), sum.to_string())].into());
        }
    }

    fn object(namespace: &str, name: &str, bytes: usize) -> ConfigMap {
        let mut object = ConfigMap { data: Some([("d".to_owned(), "x".repeat(bytes))].into()), ..ConfigMap::default() };
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some(namespace.into());
        object.metadata.uid = Some(format!("{namespace}-{name}"));
        object
    }

    /// The sum that an object was cut for.
    fn cut_at(budget: &mut Budget, event: Event<ConfigMap>) -> Option<usize> {
        let (Event::Apply(object) | Event::InitApply(object)) = budget.on_event(event) else { return None };
        object.data?.get(CUT)?.parse().ok()
    }

    const HALF: usize = NAMESPACE_BYTES / 2;

    #[test]
    fn what_is_beyond_the_budget_is_cut_for_its_namespace_alone() {
        let mut budget = Budget::default();
        let mut come =
            |namespace: &str, name: &str, bytes| cut_at(&mut budget, Event::Apply(object(namespace, name, bytes)));
        assert_eq!(come("bad", "a", HALF), None);
        assert_eq!(come("bad", "b", HALF), None);
        assert_eq!(come("bad", "c", SMALL + 1), Some(NAMESPACE_BYTES + SMALL + 1));
        assert_eq!(come("bad", "small", SMALL), None);
        assert_eq!(come("good", "a", HALF), None);
        // An accepted object stays whole when it changes otherwise, and may shrink and grow where there is room.
        assert_eq!(come("bad", "a", HALF), None);
        assert_eq!(come("bad", "a", HALF + 1), Some(NAMESPACE_BYTES + 1));
        assert_eq!(come("bad", "c", HALF), None, "it has taken the place of the one that grew");
    }

    #[test]
    fn what_is_gone_makes_room_also_if_nobody_told() {
        let mut budget = Budget::default();
        budget.on_event(Event::Apply(object("n", "a", HALF)));
        budget.on_event(Event::Apply(object("n", "b", HALF)));
        budget.on_event(Event::Delete(object("n", "a", HALF)));
        assert_eq!(cut_at(&mut budget, Event::Apply(object("n", "c", HALF))), None);
        budget.on_event::<ConfigMap>(Event::Init);
        assert_eq!(cut_at(&mut budget, Event::InitApply(object("n", "c", HALF))), None);
        assert_eq!(cut_at(&mut budget, Event::InitApply(object("n", "e", HALF))), None, "b has made room");
        budget.on_event::<ConfigMap>(Event::InitDone);
        budget.on_event(Event::Delete(object("n", "e", HALF)));
        assert_eq!(cut_at(&mut budget, Event::Apply(object("n", "d", HALF))), None);
        budget.on_event(Event::Delete(object("n", "c", HALF)));
        budget.on_event(Event::Delete(object("n", "d", HALF)));
        assert!(budget.namespaces.is_empty());
    }

    #[test]
    fn what_is_at_work_is_counted_and_not_cut() {
        let mut budget = Budget::default();
        budget.on_event::<ConfigMap>(Event::Init);
        budget.on_event(Event::InitApply(object("n", "a", NAMESPACE_BYTES)));
        let mut runs = object("n", "b", HALF);
        runs.immutable = Some(true);
        assert_eq!(cut_at(&mut budget, Event::InitApply(runs.clone())), None);
        budget.on_event::<ConfigMap>(Event::InitDone);
        assert_eq!(cut_at(&mut budget, Event::Apply(object("n", "c", HALF))), Some(2 * NAMESPACE_BYTES));
        let mut grown = object("n", "b", HALF + 1);
        grown.immutable = Some(true);
        assert_eq!(cut_at(&mut budget, Event::Apply(grown)), None);
        // An object in no namespace does not belong to a tenant.
        let mut of_cluster = object("", "d", NAMESPACE_BYTES + 1);
        of_cluster.metadata.namespace = None;
        assert_eq!(cut_at(&mut budget, Event::Apply(of_cluster)), None);
    }
}
