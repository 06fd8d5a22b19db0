//! Objects as JSON that an API server accepts.

use serde_json::Value;

/// Removes every null from a document. An absent optional field is serialised as null, and the API server rejects
/// null for fields that are not nullable.
pub fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

/// An object as JSON without nulls.
pub fn to_json<T: serde::Serialize>(object: &T) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    clean(&mut value);
    value
}
