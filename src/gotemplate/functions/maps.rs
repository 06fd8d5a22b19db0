//! Maps. `set` and `unset` change the map that they get, as in sprig. Keys are always in order.

use std::collections::BTreeSet;

use super::output::printed;
use crate::gotemplate::call::{Function, map, text};
use crate::gotemplate::value::{Answer, Entries, Heap, Value};

pub const FUNCTIONS: &[Function] = &[
    Function::open("dict", 0, |heap, args| {
        let mut entries = Entries::new();
        for pair in args.chunks(2) {
            let value = match pair.get(1) {
                Some(value) => value.clone(),
                None => heap.text("")?,
            };
            entries.insert(printed(heap, &pair[0])?, value);
        }
        heap.map(entries)
    }),
    Function::fixed("get", 2, |heap, args| {
        let (map, key) = (entries(heap, args, 0)?, text(args, 1)?);
        match map.get(&*key) {
            Some(value) => Ok(value.clone()),
            None => heap.text(""),
        }
    }),
    Function::fixed("set", 3, |heap, args| {
        let id = map(args, 0)?.ok_or("argument 1 must be a map, and is nil; use dict to make one")?;
        heap.set(id, text(args, 1)?, args[2].clone())?;
        Ok(Value::Map(id))
    }),
    Function::fixed("unset", 2, |heap, args| {
        let (map, key) = (map(args, 0)?, text(args, 1)?);
        match map {
            Some(id) => {
                heap.unset(id, &key);
                Ok(Value::Map(id))
            }
            None => heap.map(Entries::new()),
        }
    }),
    Function::fixed("hasKey", 2, |heap, args| Ok(Value::Bool(entries(heap, args, 0)?.contains_key(&*text(args, 1)?)))),
    Function::open("keys", 0, |heap, args| {
        let mut keys = vec![];
        for n in 0..args.len() {
            keys.extend(entries(heap, args, n)?.into_keys().map(Value::Text));
        }
        heap.list(keys)
    }),
    Function::fixed("values", 1, |heap, args| {
        let values = entries(heap, args, 0)?.into_values().collect();
        heap.list(values)
    }),
    Function::open("pick", 1, |heap, args| chosen(heap, args, true)),
    Function::open("omit", 1, |heap, args| chosen(heap, args, false)),
];

/// The entries of an argument, none if it is nil.
fn entries(heap: &Heap, args: &[Value], n: usize) -> Answer<Entries> {
    Ok(map(args, n)?.map(|id| heap.entries(id).clone()).unwrap_or_default())
}

/// A map with some of the entries of another one.
fn chosen(heap: &mut Heap, args: &[Value], named: bool) -> Answer {
    let names = (1..args.len()).map(|n| text(args, n)).collect::<Answer<BTreeSet<_>>>()?;
    let mut entries = entries(heap, args, 0)?;
    entries.retain(|key, _| names.contains(key) == named);
    heap.map(entries)
}
