//! The only user of serde_yaml.
//!
//! kubectl and the API server read YAML 1.1, where a bare `on` is true and
//! `12:30:45` is a number; serde_yaml writes both bare. So a document that
//! holds such a text is written as JSON, which is YAML too.

use serde::Deserialize as _;
use serde_json::Value;

/// Text of a document that a YAML 1.1 reader reads back as it was.
///
/// # Errors
/// The document cannot be serialised.
pub fn write(value: &Value) -> Result<String, String> {
    if retyped(value) {
        return serde_json::to_string_pretty(value).map(|s| s + "\n").map_err(|e| e.to_string());
    }
    serde_yaml::to_string(value).map_err(|e| e.to_string())
}

/// Documents of a YAML stream, empty ones left out.
///
/// # Errors
/// The text is no YAML; the message says where.
pub fn read(text: &str) -> Result<Vec<Value>, String> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).map_err(|e| e.to_string()))
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}

/// Whether a text somewhere in the value would become something else in a YAML 1.1 reader.
fn retyped(value: &Value) -> bool {
    match value {
        Value::String(s) => is_retyped(s),
        Value::Array(items) => items.iter().any(retyped),
        Value::Object(map) => map.iter().any(|(k, v)| is_retyped(k) || retyped(v)),
        _ => false,
    }
}

fn is_retyped(s: &str) -> bool {
    let lower = s.to_ascii_lowercase();
    let word = matches!(lower.as_str(), "y" | "n" | "yes" | "no" | "on" | "off");
    let numeric = s.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && s.chars().any(|c| c.is_ascii_digit())
        && s.chars()
            .all(|c| c.is_ascii_hexdigit() || matches!(c, '_' | ':' | '.' | '-' | '+' | 'x' | 'o' | 'T' | 'Z' | ' '));
    word || (numeric && !s.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_that_would_be_retyped_are_quoted() {
        for text in ["on", "Yes", "n", "12:30:45", "1_000", "2001-01-01", "0x1f"] {
            let written = write(&json!({ "a": text })).unwrap();
            assert!(written.contains(&format!("\"{text}\"")), "{written}");
        }
        assert_eq!(write(&json!({ "a": "plain" })).unwrap(), "a: plain\n");
    }

    #[test]
    fn a_stream_reads_as_documents() {
        assert_eq!(read("a: 1\n---\n# nothing\n---\nb: 2\n").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
        assert!(read("a: [").is_err());
    }
}
