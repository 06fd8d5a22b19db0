//! Truth, comparisons, defaults and kinds.

use crate::gotemplate::call::{Body, Function, boolean, text};
use crate::gotemplate::value::{Answer, Heap, Value};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "and", least: 1, most: None, body: Body::And },
    Function { name: "or", least: 1, most: None, body: Body::Or },
    Function::fixed("not", 1, |heap, args| Ok(Value::Bool(!heap.is_true(&args[0])))),
    Function::open("eq", 2, |_, args| {
        for other in &args[1..] {
            if equal(&args[0], other)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    Function::fixed("ne", 2, |_, args| Ok(Value::Bool(!equal(&args[0], &args[1])?))),
    Function::fixed("lt", 2, |_, args| Ok(Value::Bool(is_less(args)?))),
    Function::fixed("le", 2, |_, args| Ok(Value::Bool(is_less_or_equal(args)?))),
    Function::fixed("gt", 2, |_, args| Ok(Value::Bool(!is_less_or_equal(args)?))),
    Function::fixed("ge", 2, |_, args| Ok(Value::Bool(!is_less(args)?))),
    Function::open("default", 1, |heap, args| {
        // The value comes last, so that it can come from a pipeline.
        Ok(args[1..].first().filter(|given| heap.is_true(given)).unwrap_or(&args[0]).clone())
    }),
    Function::fixed("empty", 1, |heap, args| Ok(Value::Bool(!heap.is_true(&args[0])))),
    Function::open("coalesce", 0, |heap, args| {
        Ok(args.iter().find(|value| heap.is_true(value)).cloned().unwrap_or(Value::Nil))
    }),
    Function::fixed("ternary", 3, |_, args| Ok(args[usize::from(!boolean(args, 2)?)].clone())),
    Function::fixed("kindOf", 1, |heap: &mut Heap, args| heap.text(args[0].kind())),
    Function::fixed("kindIs", 2, |_, args| Ok(Value::Bool(*text(args, 0)? == *args[1].kind()))),
];

fn incompatible(a: &Value, b: &Value) -> String {
    let (a, b) = (a.described(), b.described());
    format!(
        "a value of type {a} cannot be compared with one of type {b}; convert one of them, for example with int or toString"
    )
}

/// Integers of any type are compared by value, and everything is unlike nil.
fn equal(a: &Value, b: &Value) -> Answer<bool> {
    match (a, b) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Int(_, a), Value::Int(_, b)) => Ok(a == b),
        #[allow(clippy::float_cmp, reason = "Go compares so")]
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Text(a), Value::Text(b)) => Ok(a == b),
        _ => Err(incompatible(a, b)),
    }
}

fn is_less(args: &[Value]) -> Answer<bool> {
    match (&args[0], &args[1]) {
        (Value::Int(_, a), Value::Int(_, b)) => Ok(a < b),
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        (Value::Text(a), Value::Text(b)) => Ok(a < b),
        (a, b) => Err(incompatible(a, b)),
    }
}

/// Less, or equal: false if one is not a number.
fn is_less_or_equal(args: &[Value]) -> Answer<bool> {
    Ok(is_less(args)? || equal(&args[0], &args[1])?)
}
