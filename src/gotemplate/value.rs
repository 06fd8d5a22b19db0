//! Values while a template is rendered, and the limits of the work.
//!
//! Lists and maps are in a `Heap`, and values refer to them by number: `set` changes a map that other values contain, as
//! in Go, and a map that contains itself is neither a leak nor an endless loop. Go's types of integers are kept,
//! because Go refuses an `int64` where a function takes an `int`, and compares them as unequal inside lists.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Maximum length of the output, and of any text on the way to it, in bytes. Requests to the API server and
/// arguments of processes must stay far below 1 MiB.
pub const TEXT_MAX: usize = 256 * 1024;
/// Maximum nesting of lists and maps. The parser of JSON refuses more than 128.
pub const DEPTH_MAX: usize = 100;
/// Budget of one rendering: a unit is a step, or a byte read or written by a function. A rendering that uses all of it
/// takes a fraction of a second.
const WORK_MAX: usize = 4 << 20;
/// Units for an element of a list or a map, about its size in bytes.
pub const ELEMENT: usize = 16;

/// The result of a function or an expression. The text of an error is for users, without its position.
pub type Answer<T = Value> = Result<T, String>;
/// Entries of a map.
pub type Entries = BTreeMap<Rc<str>, Value>;

/// Go's type of an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntType {
    Int,
    Int32,
    Int64,
    Uint8,
}

/// A list of a [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListId(usize);
/// A map of a [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapId(usize);

/// A value of a template.
#[derive(Debug, Clone)]
pub enum Value {
    /// `nil`, a null of the data, and a key that a map does not have.
    Nil,
    Bool(bool),
    Int(IntType, i64),
    Float(f64),
    Text(Rc<str>),
    List(ListId),
    Map(MapId),
}

impl Value {
    /// An integer of Go's type `int`, for lengths and positions.
    pub fn int(n: usize) -> Self {
        Self::Int(IntType::Int, i64::try_from(n).unwrap_or(i64::MAX))
    }

    /// The kind, as Go's package reflect names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "invalid",
            Self::Bool(_) => "bool",
            Self::Int(IntType::Int, _) => "int",
            Self::Int(IntType::Int32, _) => "int32",
            Self::Int(IntType::Int64, _) => "int64",
            Self::Int(IntType::Uint8, _) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "slice",
            Self::Map(_) => "map",
        }
    }

    /// The type, for messages.
    pub fn described(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::List(_) => "list",
            _ => self.kind(),
        }
    }
}

/// All lists and maps of one rendering, and the rest of its budget.
pub struct Heap {
    lists: Vec<Rc<[Value]>>,
    maps: Vec<Entries>,
    left: usize,
}

impl Heap {
    pub fn new() -> Self {
        Self { lists: vec![], maps: vec![], left: WORK_MAX }
    }

    /// Takes units from the budget.
    pub fn charge(&mut self, units: usize) -> Answer<()> {
        self.left = self
            .left
            .checked_sub(units)
            .ok_or("rendering takes too many steps; use shorter lists, shorter texts or fewer loops")?;
        Ok(())
    }

    /// Takes what it costs to read the arguments of a function.
    pub fn charge_reading(&mut self, arguments: &[Value]) -> Answer<()> {
        let units = arguments.iter().map(|value| match value {
            Value::Text(text) => text.len(),
            Value::List(id) => self.items(*id).len(),
            Value::Map(id) => self.entries(*id).len(),
            _ => 0,
        });
        let units = units.sum::<usize>();
        self.charge(units + 1)
    }

    /// A text as a value.
    pub fn text(&mut self, text: impl Into<Rc<str>> + AsRef<str>) -> Answer {
        let length = text.as_ref().len();
        if length > TEXT_MAX {
            return Err(too_long());
        }
        self.charge(length)?;
        Ok(Value::Text(text.into()))
    }

    /// Bytes as a value: what is not UTF-8 becomes U+FFFD, one for each byte, as when Go writes JSON.
    pub fn bytes(&mut self, bytes: &[u8]) -> Answer {
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        self.text(text)
    }

    /// A list as a value.
    pub fn list(&mut self, items: Vec<Value>) -> Answer {
        self.charge((items.len() + 1) * ELEMENT)?;
        self.lists.push(items.into());
        Ok(Value::List(ListId(self.lists.len() - 1)))
    }

    /// A map as a value.
    pub fn map(&mut self, entries: Entries) -> Answer {
        self.charge((entries.len() + 1) * ELEMENT)?;
        self.maps.push(entries);
        Ok(Value::Map(MapId(self.maps.len() - 1)))
    }

    pub fn items(&self, id: ListId) -> Rc<[Value]> {
        Rc::clone(&self.lists[id.0])
    }

    pub fn entries(&self, id: MapId) -> &Entries {
        &self.maps[id.0]
    }

    /// Sets one entry of a map.
    pub fn set(&mut self, id: MapId, key: Rc<str>, value: Value) -> Answer<()> {
        self.charge(ELEMENT)?;
        self.maps[id.0].insert(key, value);
        Ok(())
    }

    /// Removes one entry of a map.
    pub fn unset(&mut self, id: MapId, key: &str) {
        self.maps[id.0].remove(key);
    }

    /// Data of a template. An integer is an `int32` if it fits, as `.RetryLeft` is, and otherwise an `int64`.
    pub fn of_data(&mut self, data: &serde_json::Value) -> Answer {
        self.of_json(data, 0, |number| match number.as_i64() {
            Some(n) => Value::Int(if i32::try_from(n).is_ok() { IntType::Int32 } else { IntType::Int64 }, n),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        })
    }

    /// A text of JSON, as Go reads one: all numbers are `float64`. Nil if it is not JSON.
    pub fn of_text(&mut self, text: &str) -> Answer {
        match serde_json::from_str(text) {
            Ok(json) => self.of_json(&json, 0, |number| Value::Float(number.as_f64().unwrap_or(f64::NAN))),
            Err(_) => Ok(Value::Nil),
        }
    }

    fn of_json(&mut self, json: &serde_json::Value, depth: usize, number: fn(&serde_json::Number) -> Value) -> Answer {
        use serde_json::Value as Json;
        check_depth(depth)?;
        match json {
            Json::Null => Ok(Value::Nil),
            Json::Bool(b) => Ok(Value::Bool(*b)),
            Json::Number(n) => Ok(number(n)),
            Json::String(text) => self.text(text.as_str()),
            Json::Array(items) => {
                let items = items.iter().map(|item| self.of_json(item, depth + 1, number)).collect::<Answer<_>>()?;
                self.list(items)
            }
            Json::Object(entries) => {
                let entry = |(key, value): (&String, _)| {
                    self.charge(key.len())?;
                    Ok((Rc::from(key.as_str()), self.of_json(value, depth + 1, number)?))
                };
                let entries = entries.iter().map(entry).collect::<Answer<_>>()?;
                self.map(entries)
            }
        }
    }

    /// The truth of a value in `if`: everything but zero, nil and what is empty.
    pub fn is_true(&self, value: &Value) -> bool {
        match value {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(_, n) => *n != 0,
            Value::Float(n) => *n != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(id) => !self.items(*id).is_empty(),
            Value::Map(id) => !self.entries(*id).is_empty(),
        }
    }

    /// Equality of the elements of lists: type and value, through lists and maps.
    pub fn equal(&mut self, a: &Value, b: &Value, depth: usize) -> Answer<bool> {
        check_depth(depth)?;
        self.charge(1)?;
        match (a, b) {
            (Value::Nil, Value::Nil) => Ok(true),
            (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
            (Value::Int(type_a, a), Value::Int(type_b, b)) => Ok(type_a == type_b && a == b),
            #[allow(clippy::float_cmp, reason = "Go compares so")]
            (Value::Float(a), Value::Float(b)) => Ok(a == b),
            (Value::Text(a), Value::Text(b)) => {
                self.charge(a.len().min(b.len()))?;
                Ok(a == b)
            }
            (Value::List(a), Value::List(b)) => {
                let (a, b) = (self.items(*a), self.items(*b));
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !self.equal(a, b, depth + 1)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Map(a), Value::Map(b)) => {
                if self.entries(*a).len() != self.entries(*b).len() {
                    return Ok(false);
                }
                self.charge(self.entries(*a).len() * ELEMENT)?;
                let (a, b) = (self.entries(*a).clone(), self.entries(*b).clone());
                for ((key_a, a), (key_b, b)) in a.iter().zip(b.iter()) {
                    if key_a != key_b || !self.equal(a, b, depth + 1)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Refuses a value that is nested too deep, and with it one that contains itself.
pub fn check_depth(depth: usize) -> Answer<()> {
    if depth > DEPTH_MAX {
        return Err(format!("lists and maps are nested more than {DEPTH_MAX} deep; use flatter ones"));
    }
    Ok(())
}

/// A text that is being written, of at most [`TEXT_MAX`] bytes.
#[derive(Default)]
pub struct Out {
    text: String,
}

impl Out {
    pub fn push_str(&mut self, text: &str) -> Answer<()> {
        if self.text.len() + text.len() > TEXT_MAX {
            return Err(too_long());
        }
        self.text.push_str(text);
        Ok(())
    }

    pub fn push(&mut self, c: char) -> Answer<()> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    /// Writes a character several times.
    pub fn fill(&mut self, c: char, times: usize) -> Answer<()> {
        if times > TEXT_MAX {
            return Err(too_long());
        }
        (0..times).try_for_each(|_| self.push(c))
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

fn too_long() -> String {
    format!("the text is longer than {} KiB; write less", TEXT_MAX / 1024)
}
