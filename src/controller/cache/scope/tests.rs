use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::{self, store::Writer};
use proptest::prelude::*;
use serde_json::json;

use crate::controller::cache::scope::*;

fn object(namespace: &str, name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name, "namespace": namespace } })).unwrap()
}

/// Two watched namespaces, and the store that follows them.
struct Site {
    whole: Whole<ConfigMap>,
    store: Store<ConfigMap>,
    writer: Writer<ConfigMap>,
    told: usize,
}

impl Site {
    fn new() -> Self {
        let (store, writer) = reflector::store();
        Self { whole: Whole::new(vec!["a".into(), "b".into()]), store, writer, told: 0 }
    }

    fn follow(&mut self, events: Vec<Event<ConfigMap>>) {
        self.told += events.len();
        events.iter().for_each(|event| self.writer.apply_watcher_event(event));
    }

    fn on_event(&mut self, index: usize, event: Event<ConfigMap>) {
        let events = self.whole.on_event(index, event, &self.store);
        self.follow(events);
    }

    fn list(&mut self, index: usize, names: &[&str]) {
        let namespace = self.whole.parts[index].name.clone();
        self.on_event(index, Event::Init);
        names.iter().for_each(|name| self.on_event(index, Event::InitApply(object(&namespace, name))));
        self.on_event(index, Event::InitDone);
    }

    fn absent(&mut self, index: usize) {
        let events = self.whole.absent(index, &self.store);
        self.follow(events);
    }

    fn there(&self) -> BTreeSet<String> {
        let full = |o: Arc<ConfigMap>| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any());
        self.store.state().into_iter().map(full).collect()
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn nothing_is_told_before_every_namespace_is_listed() {
    let mut site = Site::new();
    site.list(0, &["x", "y"]);
    site.on_event(0, Event::Apply(object("a", "z")));
    site.on_event(0, Event::Delete(object("a", "y")));
    assert_eq!(site.told, 0);
    site.list(1, &["x"]);
    assert_eq!(site.there(), set(&["a/x", "a/z", "b/x"]));
    assert_eq!(site.told, 5, "one list");
}

#[test]
fn another_list_of_one_namespace_leaves_the_other_and_tells_what_went() {
    let mut site = Site::new();
    site.list(0, &["x", "y"]);
    site.list(1, &["x"]);
    // A list that breaks off has no effect.
    site.on_event(0, Event::Init);
    site.on_event(0, Event::InitApply(object("a", "y")));
    site.list(0, &["x", "new"]);
    assert_eq!(site.there(), set(&["a/new", "a/x", "b/x"]));
    site.on_event(1, Event::Delete(object("b", "x")));
    assert_eq!(site.there(), set(&["a/new", "a/x"]));
}

#[test]
fn a_namespace_that_does_not_exist_holds_nobody_up_and_is_listed_when_it_comes() {
    let mut site = Site::new();
    site.absent(1);
    site.list(0, &["x"]);
    assert_eq!(site.there(), set(&["a/x"]));
    site.list(1, &["late"]);
    assert_eq!(site.there(), set(&["a/x", "b/late"]));
    // The namespace disappears while the watch is down.
    site.absent(1);
    assert_eq!(site.there(), set(&["a/x"]));
}

#[test]
fn a_namespace_that_ends_without_rights_holds_nobody_up_and_keeps_what_is_known() {
    let mut site = Site::new();
    let ends = |site: &mut Site| {
        let events = site.whole.ends(1);
        site.follow(events);
    };
    ends(&mut site);
    site.list(0, &["x"]);
    assert_eq!(site.there(), set(&["a/x"]));
    // It is created again.
    site.list(1, &["y"]);
    assert_eq!(site.there(), set(&["a/x", "b/y"]));
    ends(&mut site);
    assert_eq!(site.there(), set(&["a/x", "b/y"]));
}

#[test]
fn an_object_that_was_made_again_under_its_name_is_told_as_gone_first() {
    let mut site = Site::new();
    let made = |uid: &str| {
        let mut object = object("a", "x");
        object.metadata.uid = Some(uid.into());
        object
    };
    site.list(1, &[]);
    site.on_event(0, Event::Init);
    site.on_event(0, Event::InitApply(made("1")));
    site.on_event(0, Event::InitDone);
    site.on_event(0, Event::Init);
    let told = site.whole.on_event(0, Event::InitApply(made("2")), &site.store);
    let uid = |o: &ConfigMap| o.metadata.uid.clone().unwrap();
    match &told[..] {
        [Event::Delete(old), Event::Apply(new)] => assert_eq!((uid(old), uid(new)), ("1".into(), "2".into())),
        other => panic!("{other:?}"),
    }
    site.follow(told);
    assert_eq!(site.whole.on_event(0, Event::InitApply(made("2")), &site.store).len(), 1, "it is the same");
}

#[test]
fn namespaces_are_names_and_none_stands_for_all() {
    for text in ["a", "a-1", " a ", "0", "", &"n".repeat(63)] {
        assert_eq!(parse(text), Ok(text.trim().to_owned()));
    }
    for text in ["A", "a_b", "-a", "a-", "a.b", "a b", "*", &"n".repeat(64)] {
        assert!(parse(text).unwrap_err().contains("not the name of a namespace"), "{text}");
    }
    let some = Scope::new(vec!["b".into(), String::new(), "a".into(), "b".into()]);
    assert_eq!(some.names(), ["a", "b"]);
    assert!(some.has("a") && !some.has("c") && some.outside("a").is_none());
    assert!(some.outside("c").unwrap().contains("namespace c is not among those"));
    let all = Scope::new(vec![String::new()]);
    assert!(all.has("c") && all.outside("c").is_none());
}

proptest! {
    /// Whatever events come from two namespaces in any order, the store contains the objects of both.
    #[test]
    fn the_store_has_what_the_namespaces_have(steps in prop::collection::vec((0usize..2, 0usize..6, 0usize..4), 0..40)) {
        let mut site = Site::new();
        let mut have = [BTreeSet::new(), BTreeSet::new()];
        let mut is_known = [false, false];
        for (index, what, name) in steps {
            let (namespace, name) = (["a", "b"][index], format!("o{name}"));
            match what {
                // A watch begins with a list.
                _ if !is_known[index] => {}
                0 | 1 => {
                    have[index].insert(name.clone());
                    site.on_event(index, Event::Apply(object(namespace, &name)));
                    continue;
                }
                2 => {
                    if have[index].remove(&name) {
                        site.on_event(index, Event::Delete(object(namespace, &name)));
                    }
                    continue;
                }
                // Objects that disappear and appear while the watch is down.
                3 => drop(have[index].remove(&name)),
                _ => drop(have[index].insert(name)),
            }
            let names: Vec<&str> = have[index].iter().map(String::as_str).collect();
            site.list(index, &names);
            is_known[index] = true;
        }
        let all = |index: usize| have[index].iter().map(move |n: &String| format!("{}/{n}", ["a", "b"][index]));
        let expected = if is_known == [true, true] { all(0).chain(all(1)).collect() } else { BTreeSet::new() };
        prop_assert_eq!(site.there(), expected);
    }
}
