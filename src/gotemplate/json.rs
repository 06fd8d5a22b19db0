//! Values as JSON, in the format of Go: keys are sorted, and `<`, `>` and `&` are escaped unless told otherwise.

use std::fmt::Write as _;

use super::number::Digits;
use super::value::{Answer, Heap, Out, Value, check_depth};

/// How JSON is written.
#[derive(Clone, Copy)]
pub struct Style {
    /// Escapes what HTML would read.
    pub html: bool,
    /// A line for each element, with two spaces for each level.
    pub pretty: bool,
}

/// A value as JSON. None if the value has a number that is infinite or not a number.
pub fn encoded(heap: &Heap, style: Style, value: &Value) -> Answer<Option<String>> {
    let mut writer = Writer { heap, style, out: Out::default() };
    Ok(writer.value(value, 0)?.then(|| writer.out.into_text()))
}

struct Writer<'h> {
    heap: &'h Heap,
    style: Style,
    out: Out,
}

impl Writer<'_> {
    /// False if JSON cannot express the value.
    fn value(&mut self, value: &Value, depth: usize) -> Answer<bool> {
        check_depth(depth)?;
        match value {
            Value::Nil => self.out.push_str("null")?,
            Value::Bool(b) => self.out.push_str(if *b { "true" } else { "false" })?,
            Value::Int(_, n) => self.out.push_str(&n.to_string())?,
            Value::Float(n) if !n.is_finite() => return Ok(false),
            Value::Float(n) => self.out.push_str(&float(*n))?,
            Value::Text(text) => self.text(text)?,
            Value::List(id) => {
                let items = self.heap.items(*id);
                self.out.push('[')?;
                for (n, item) in items.iter().enumerate() {
                    self.next(n, depth + 1)?;
                    if !self.value(item, depth + 1)? {
                        return Ok(false);
                    }
                }
                self.end(items.is_empty(), depth)?;
                self.out.push(']')?;
            }
            Value::Map(id) => {
                let heap = self.heap;
                let entries = heap.entries(*id);
                self.out.push('{')?;
                for (n, (key, item)) in entries.iter().enumerate() {
                    self.next(n, depth + 1)?;
                    self.text(key)?;
                    self.out.push_str(if self.style.pretty { ": " } else { ":" })?;
                    if !self.value(item, depth + 1)? {
                        return Ok(false);
                    }
                }
                self.end(entries.is_empty(), depth)?;
                self.out.push('}')?;
            }
        }
        Ok(true)
    }

    /// What stands before an element.
    fn next(&mut self, n: usize, depth: usize) -> Answer<()> {
        if n > 0 {
            self.out.push(',')?;
        }
        self.line(depth)
    }

    /// What stands after the last element.
    fn end(&mut self, is_empty: bool, depth: usize) -> Answer<()> {
        if is_empty { Ok(()) } else { self.line(depth) }
    }

    fn line(&mut self, depth: usize) -> Answer<()> {
        if self.style.pretty {
            self.out.push('\n')?;
            self.out.fill(' ', 2 * depth)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Answer<()> {
        let mut escaped = String::with_capacity(text.len() + 2);
        escaped.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => escaped.extend(['\\', c]),
                '\x08' => escaped.push_str("\\b"),
                '\x0c' => escaped.push_str("\\f"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                // JavaScript reads the last two as ends of lines.
                '\0'..'\x20' | '\u{2028}' | '\u{2029}' => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
                '<' | '>' | '&' if self.style.html => drop(write!(escaped, "\\u{:04x}", u32::from(c))),
                c => escaped.push(c),
            }
        }
        escaped.push('"');
        self.out.push_str(&escaped)
    }
}

/// A finite number, with an exponent if it is very small or large, as JavaScript writes it.
fn float(n: f64) -> String {
    let digits = Digits::shortest(n);
    let sign = if n.is_sign_negative() { "-" } else { "" };
    if (-6..21).contains(&digits.exponent) || n == 0.0 {
        return format!("{sign}{}", digits.plain());
    }
    // The exponent has no leading zero if it is negative.
    format!("{sign}{}", digits.scientific('e').replace("e-0", "e-"))
}
