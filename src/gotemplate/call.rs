//! What a function of templates is, and how it reads its arguments.
//!
//! The types of parameters are Go's: a text is never made of a number, and nil is an empty map but no text.

use std::rc::Rc;

use super::value::{Answer, Heap, IntType, ListId, MapId, Value};

/// A function that templates may call.
pub struct Function {
    pub name: &'static str,
    /// Fewest arguments.
    pub least: usize,
    /// Most arguments; any number if there is none.
    pub most: Option<usize>,
    pub body: Body,
}

/// What a function does.
pub enum Body {
    /// Evaluates its arguments until one is false.
    And,
    /// Evaluates its arguments until one is true.
    Or,
    /// Gets as many arguments as it takes: the parser has counted them.
    Plain(fn(&mut Heap, &[Value]) -> Answer),
}

impl Function {
    /// A function with a fixed number of arguments.
    pub const fn fixed(name: &'static str, arguments: usize, body: fn(&mut Heap, &[Value]) -> Answer) -> Self {
        Self { name, least: arguments, most: Some(arguments), body: Body::Plain(body) }
    }

    /// A function with any number of arguments from `least` on.
    pub const fn open(name: &'static str, least: usize, body: fn(&mut Heap, &[Value]) -> Answer) -> Self {
        Self { name, least, most: None, body: Body::Plain(body) }
    }
}

fn wrong(arguments: &[Value], n: usize, wanted: &str) -> String {
    format!("argument {} must be {wanted}, and is {}", n + 1, arguments[n].described())
}

pub fn text(arguments: &[Value], n: usize) -> Answer<Rc<str>> {
    match &arguments[n] {
        Value::Text(text) => Ok(Rc::clone(text)),
        Value::Nil => Err(format!("argument {} must be a string, and is nil; use default to give it a value", n + 1)),
        _ => Err(format!("{}; use toString to convert it", wrong(arguments, n, "a string"))),
    }
}

pub fn boolean(arguments: &[Value], n: usize) -> Answer<bool> {
    match arguments[n] {
        Value::Bool(b) => Ok(b),
        _ => Err(wrong(arguments, n, "a bool")),
    }
}

/// An integer of Go's type `int`: of a template or of the functions `int` and `len`, not of the data.
pub fn int(arguments: &[Value], n: usize) -> Answer<i64> {
    match arguments[n] {
        Value::Int(IntType::Int, n) => Ok(n),
        _ => Err(format!("{}; use int to convert it", wrong(arguments, n, "an int"))),
    }
}

/// An `int` that is not negative.
pub fn length(arguments: &[Value], n: usize) -> Answer<usize> {
    usize::try_from(int(arguments, n)?).map_err(|_| format!("argument {} must not be negative", n + 1))
}

/// A map; none for nil, which Go reads as an empty one.
pub fn map(arguments: &[Value], n: usize) -> Answer<Option<MapId>> {
    match arguments[n] {
        Value::Map(id) => Ok(Some(id)),
        Value::Nil => Ok(None),
        _ => Err(wrong(arguments, n, "a map")),
    }
}

pub fn list(arguments: &[Value], n: usize) -> Answer<ListId> {
    match arguments[n] {
        Value::List(id) => Ok(id),
        _ => Err(wrong(arguments, n, "a list")),
    }
}
