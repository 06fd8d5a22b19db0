//! Objects of a watch, found by keys that they share, so that a reconcile of one object
//! costs as much with ten thousand objects as with ten. Clients in Go call this an indexer.
//!
//! An index has names only. The objects are in the store, which decides which objects exist.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use kube::Resource;
use kube::runtime::reflector::{ObjectRef, ObjectRefExtra, Store};
use kube::runtime::watcher::Event;

/// Keys under which an object is found.
pub type Keys<K> = fn(&K) -> Vec<String>;

/// A store, and an index of its objects by key.
pub struct Indexed<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// The store itself.
    pub store: Store<K>,
    index: Arc<RwLock<Index<K>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Clone for Indexed<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), index: self.index.clone() }
    }
}

struct Index<K: Resource<DynamicType = ()>> {
    keys: Keys<K>,
    of: HashMap<Arc<ObjectRef<K>>, Box<[Arc<str>]>>,
    by: HashMap<Arc<str>, HashSet<Arc<ObjectRef<K>>>>,
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Indexed<K> {
    /// An index of an empty store.
    pub fn new(store: Store<K>, keys: Keys<K>) -> Self {
        let index = Index { keys, of: HashMap::new(), by: HashMap::new() };
        Self { store, index: Arc::new(RwLock::new(index)) }
    }

    /// The object with this name.
    pub fn get(&self, name: &ObjectRef<K>) -> Option<Arc<K>> {
        self.store.get(name)
    }

    /// Objects that have a key, in no order.
    pub fn with(&self, key: &str) -> Vec<Arc<K>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        // The store decides which objects exist: the store and the index are not changed in one step.
        index.by.get(key).into_iter().flatten().filter_map(|r| self.store.get(r)).collect()
    }

    /// Follows the watch. The store must have handled the event before.
    pub fn on_event(&self, event: &Event<K>) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) | Event::InitApply(object) => index.put(object),
            Event::Delete(object) => index.remove(&ObjectRef::from_obj(object)),
            Event::Init => {}
            // Objects that were deleted while the watch was closed are in no event.
            Event::InitDone => {
                let gone: Vec<_> = index.of.keys().filter(|r| self.store.get(r).is_none()).cloned().collect();
                gone.iter().for_each(|r| index.remove(r));
            }
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Index<K> {
    fn put(&mut self, object: &K) {
        let (mut name, keys) = (ObjectRef::from_obj(object), (self.keys)(object));
        if self.of.get(&name).is_some_and(|known| known.iter().map(|k| &**k).eq(keys.iter().map(String::as_str))) {
            return;
        }
        self.remove(&name);
        // Uid and version: no query of the index uses them.
        name.extra = ObjectRefExtra::default();
        let name = Arc::new(name);
        // A known key is stored only once.
        let shared =
            |key: &String| self.by.get_key_value(key.as_str()).map_or_else(|| key.as_str().into(), |(k, _)| k.clone());
        let keys: Box<[Arc<str>]> = keys.iter().map(shared).collect();
        for key in &keys {
            self.by.entry(key.clone()).or_default().insert(name.clone());
        }
        self.of.insert(name, keys);
    }

    fn remove(&mut self, name: &ObjectRef<K>) {
        for key in self.of.remove(name).unwrap_or_default() {
            if let Some(all) = self.by.get_mut(&key) {
                all.remove(name);
                if all.is_empty() {
                    self.by.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt as _;
    use kube::runtime::reflector;
    use proptest::prelude::*;

    use super::*;

    fn object(name: u8, keys: &BTreeSet<u8>) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(format!("o{name}"));
        object.metadata.namespace = Some("n".into());
        object.data = Some(keys.iter().map(|k| (format!("k{k}"), String::new())).collect());
        object
    }

    fn keys(object: &ConfigMap) -> Vec<String> {
        object.data.iter().flatten().map(|(k, _)| k.clone()).collect()
    }

    #[derive(Clone, Debug)]
    enum Change {
        Put(u8, BTreeSet<u8>),
        Remove(u8),
        /// The watch was lost; these objects exist when it is open again.
        Again(BTreeMap<u8, BTreeSet<u8>>),
    }

    fn change() -> impl Strategy<Value = Change> {
        let some = || prop::collection::btree_set(0u8..4, 0..3);
        prop_oneof![
            4 => (0u8..6, some()).prop_map(|(n, k)| Change::Put(n, k)),
            2 => (0u8..6).prop_map(Change::Remove),
            1 => prop::collection::btree_map(0u8..6, some(), 0..5).prop_map(Change::Again),
        ]
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_of_the_store_would_find(changes in prop::collection::vec(change(), 0..40)) {
            let (store, mut writer) = reflector::store::<ConfigMap>();
            let indexed = Indexed::new(store, keys);
            let mut send = |event: Event<ConfigMap>| {
                writer.apply_watcher_event(&event);
                indexed.on_event(&event);
            };
            send(Event::Init);
            send(Event::InitDone);
            let mut there: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Put(name, keys) => {
                        send(Event::Apply(object(name, &keys)));
                        there.insert(name, keys);
                    }
                    Change::Remove(name) => {
                        if let Some(keys) = there.remove(&name) {
                            send(Event::Delete(object(name, &keys)));
                        }
                    }
                    Change::Again(all) => {
                        send(Event::Init);
                        all.iter().for_each(|(name, keys)| send(Event::InitApply(object(*name, keys))));
                        send(Event::InitDone);
                        there = all;
                    }
                }
                for key in 0..4u8 {
                    let mut found: Vec<String> =
                        indexed.with(&format!("k{key}")).iter().map(|o| o.name_any()).collect();
                    found.sort();
                    let expected: Vec<String> =
                        there.iter().filter(|(_, k)| k.contains(&key)).map(|(n, _)| format!("o{n}")).collect();
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
