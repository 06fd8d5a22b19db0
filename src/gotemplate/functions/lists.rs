//! Lists. Each function makes a new list: the old one stays as it is.

use std::rc::Rc;

use super::numbers::to_integer;
use super::text::texts;
use crate::gotemplate::call::{Function, list, text};
use crate::gotemplate::value::{Answer, Heap, IntType, Value};

pub const FUNCTIONS: &[Function] = &[
    Function::open("list", 0, |heap, args| heap.list(args.to_vec())),
    Function::fixed("len", 1, |heap, args| match &args[0] {
        Value::Text(text) => Ok(Value::int(text.len())),
        Value::List(id) => Ok(Value::int(heap.items(*id).len())),
        Value::Map(id) => Ok(Value::int(heap.entries(*id).len())),
        other => Err(format!("a value of type {} has no length", other.described())),
    }),
    Function::open("index", 1, index),
    Function::open("slice", 1, slice),
    Function::fixed("first", 1, |heap, args| Ok(items(heap, args)?.first().cloned().unwrap_or(Value::Nil))),
    Function::fixed("last", 1, |heap, args| Ok(items(heap, args)?.last().cloned().unwrap_or(Value::Nil))),
    Function::fixed("rest", 1, |heap, args| {
        let rest = items(heap, args)?.iter().skip(1).cloned().collect();
        heap.list(rest)
    }),
    Function::fixed("initial", 1, |heap, args| {
        let items = items(heap, args)?;
        heap.list(items[..items.len().saturating_sub(1)].to_vec())
    }),
    Function::fixed("append", 2, |heap, args| {
        let longer = items(heap, args)?.iter().chain([&args[1]]).cloned().collect();
        heap.list(longer)
    }),
    Function::fixed("prepend", 2, |heap, args| {
        let longer = [&args[1]].into_iter().chain(items(heap, args)?.iter()).cloned().collect();
        heap.list(longer)
    }),
    Function::open("concat", 0, |heap, args| {
        let mut all = vec![];
        for n in 0..args.len() {
            all.extend_from_slice(&heap.items(list(args, n)?));
        }
        heap.list(all)
    }),
    Function::fixed("reverse", 1, |heap, args| {
        let reversed = items(heap, args)?.iter().rev().cloned().collect();
        heap.list(reversed)
    }),
    Function::fixed("uniq", 1, |heap, args| {
        let mut kept = vec![];
        for item in items(heap, args)?.iter() {
            if !is_in(heap, &kept, item)? {
                kept.push(item.clone());
            }
        }
        heap.list(kept)
    }),
    Function::open("without", 1, |heap, args| {
        let mut kept = vec![];
        for item in items(heap, args)?.iter() {
            if !is_in(heap, &args[1..], item)? {
                kept.push(item.clone());
            }
        }
        heap.list(kept)
    }),
    Function::fixed("has", 2, |heap, args| {
        let list = match args[1] {
            Value::Nil => return Ok(Value::Bool(false)),
            _ => heap.items(list(args, 1)?),
        };
        Ok(Value::Bool(is_in(heap, &list, &args[0])?))
    }),
    Function::fixed("sortAlpha", 1, |heap, args| {
        let mut sorted = match &args[0] {
            Value::Nil => vec![Rc::from("<nil>")],
            value => texts(heap, value)?,
        };
        sorted.sort();
        let sorted = sorted.into_iter().map(|text| heap.text(text)).collect::<Answer<_>>()?;
        heap.list(sorted)
    }),
];

/// The elements of the first argument.
fn items(heap: &Heap, args: &[Value]) -> Answer<Rc<[Value]>> {
    Ok(heap.items(list(args, 0)?))
}

fn is_in(heap: &mut Heap, items: &[Value], wanted: &Value) -> Answer<bool> {
    for item in items {
        if heap.equal(wanted, item, 0)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An element of an element: `index .list 0 "key"`.
fn index(heap: &mut Heap, args: &[Value]) -> Answer {
    if matches!(args[0], Value::Nil) {
        return Err("nil has no elements".to_owned());
    }
    let mut value = args[0].clone();
    for n in 1..args.len() {
        value = match &value {
            Value::Map(id) => heap.entries(*id).get(&*text(args, n)?).cloned().unwrap_or(Value::Nil),
            Value::List(id) => {
                let items = heap.items(*id);
                items.get(position(args, n)?).cloned().ok_or_else(|| outside(items.len()))?
            }
            Value::Text(text) => {
                let byte = text.as_bytes().get(position(args, n)?).ok_or_else(|| outside(text.len()))?;
                Value::Int(IntType::Uint8, i64::from(*byte))
            }
            other => return Err(format!("a value of type {} has no elements", other.described())),
        };
    }
    Ok(value)
}

/// An integer of any type. Far outside if it is negative.
fn position(args: &[Value], n: usize) -> Answer<usize> {
    match args[n] {
        Value::Int(_, position) => Ok(usize::try_from(position).unwrap_or(usize::MAX)),
        _ => Err(format!("argument {} must be an int, and is {}", n + 1, args[n].described())),
    }
}

fn outside(length: usize) -> String {
    format!("the position is outside of the value, which has the length {length}")
}

/// Elements from a position up to another one: the function of sprig, which takes lists only.
fn slice(heap: &mut Heap, args: &[Value]) -> Answer {
    let items = items(heap, args)?;
    if items.is_empty() {
        return Ok(Value::Nil);
    }
    let position = |value: &Value| usize::try_from(to_integer(value)).unwrap_or(usize::MAX);
    let start = args.get(1).map_or(0, position);
    let end = args.get(2).map_or(items.len(), position);
    let part = items.get(start..end).ok_or_else(|| outside(items.len()))?;
    heap.list(part.to_vec())
}
