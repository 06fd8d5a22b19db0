//! Reads the values at given places of a JSON document. Everything else is skipped while it is read, and takes no
//! memory.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A place: names of fields, from the outermost. Lists have no names: a place in a list is a place in each of its
/// items.
pub type Place = [&'static str];

/// Maximum number of fields of an object, and of items of a list, that are read. Objects that work have fewer; of a
/// larger object, the rest is ignored. A container has at most 250 variables of the user's, and the operator's.
const MOST: usize = 300;

/// The values at these places, and below; the whole document if one of the places is empty.
#[derive(Clone)]
pub struct Part<'a>(Vec<&'a Place>);

impl<'a> Part<'a> {
    /// Selects these places of a document.
    pub fn of(places: impl IntoIterator<Item = &'a Place>) -> Self {
        Self(places.into_iter().collect())
    }

    /// The part of it within a field.
    fn below(&self, field: &str) -> Option<Self> {
        if self.is_all() {
            return Some(self.clone());
        }
        let below: Vec<&Place> = self
            .0
            .iter()
            .filter_map(|p| p.split_first().filter(|(first, _)| **first == field))
            .map(|(_, p)| p)
            .collect();
        (!below.is_empty()).then_some(Self(below))
    }

    fn is_all(&self) -> bool {
        self.0.iter().any(|p| p.is_empty())
    }
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            match self.below(&name).filter(|_| read.len() < MOST) {
                Some(part) => drop(read.insert(name, fields.next_value_seed(part)?)),
                None => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(read))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = vec![];
        while read.len() < MOST {
            let Some(item) = items.next_element_seed(self.clone())? else { return Ok(Value::Array(read)) };
            read.push(item);
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(read))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(document: &Value, places: &[&Place]) -> Value {
        let text = document.to_string();
        Part::of(places.iter().copied()).deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap()
    }

    #[test]
    fn what_stands_at_a_place_is_read_and_nothing_beside_it() {
        let document =
            json!({ "a": { "b": [{ "c": 1, "d": 2 }, { "c": -1.5 }, {}], "e": [] }, "f": { "g": [null, true, "x"] } });
        assert_eq!(part(&document, &[&["a", "b", "c"]]), json!({ "a": { "b": [{ "c": 1 }, { "c": -1.5 }, {}] } }));
        assert_eq!(
            part(&document, &[&["f"], &["a", "e"]]),
            json!({ "a": { "e": [] }, "f": { "g": [null, true, "x"] } })
        );
        assert_eq!(part(&document, &[&[]]), document);
        assert_eq!(part(&document, &[&["z"]]), json!({}));
    }

    #[test]
    fn of_very_many_the_first_are_read() {
        let map: Map<String, Value> = (0..3000).map(|i| (format!("l{i}"), json!(i))).collect();
        let read = part(&json!({ "a": vec![1; 3000], "b": map, "c": 1 }), &[&[]]);
        assert_eq!((read["a"].as_array().unwrap().len(), read["b"].as_object().unwrap().len()), (MOST, MOST));
        assert_eq!((&read["b"]["l199"], &read["c"]), (&json!(199), &json!(1)));
    }
}
