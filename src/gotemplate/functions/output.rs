//! Values to text: printing, escaping, JSON and base64.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::gotemplate::call::{Function, text};
use crate::gotemplate::json::{Style, encoded};
use crate::gotemplate::value::{Answer, Heap, Out, Value};
use crate::gotemplate::{escape, format};

pub const FUNCTIONS: &[Function] = &[
    Function::open("print", 0, |heap, args| written(heap, |heap, out| format::print(heap, out, args))),
    Function::open("println", 0, |heap, args| written(heap, |heap, out| format::println(heap, out, args))),
    Function::open("printf", 1, |heap, args| {
        let format = text(args, 0)?;
        written(heap, |heap, out| format::printf(heap, out, &format, &args[1..]))
    }),
    Function::fixed("toString", 1, |heap, args| Ok(Value::Text(printed(heap, &args[0])?))),
    Function::open("cat", 0, |heap, args| {
        let text = joined(heap, args, |text| text)?;
        heap.text(text)
    }),
    Function::open("quote", 0, |heap, args| {
        let text = joined(heap, args, |text| escape::quoted(&text, '"', false))?;
        heap.text(text)
    }),
    Function::open("squote", 0, |heap, args| {
        let text = joined(heap, args, |text| format!("'{text}'"))?;
        heap.text(text)
    }),
    Function::open("html", 0, |heap, args| escaped(heap, args, escape::html)),
    Function::open("js", 0, |heap, args| escaped(heap, args, escape::javascript)),
    Function::open("urlquery", 0, |heap, args| escaped(heap, args, escape::query)),
    Function::fixed("toJson", 1, |heap, args| json(heap, args, Style { html: true, pretty: false })),
    Function::fixed("toPrettyJson", 1, |heap, args| json(heap, args, Style { html: true, pretty: true })),
    Function::fixed("toRawJson", 1, |heap, args| {
        let text = encoded(heap, Style { html: false, pretty: false }, &args[0])?;
        heap.text(text.ok_or("JSON has no infinite numbers")?)
    }),
    Function::fixed("fromJson", 1, |heap, args| {
        let text = text(args, 0)?;
        heap.of_text(&text)
    }),
    Function::fixed("b64enc", 1, |heap, args| {
        let text = STANDARD.encode(text(args, 0)?.as_bytes());
        heap.text(text)
    }),
    Function::fixed("b64dec", 1, |heap, args| {
        let text = text(args, 0)?.replace(['\r', '\n'], "");
        let bytes = STANDARD.decode(text).map_err(|_| "the text is not base64")?;
        heap.bytes(&bytes)
    }),
];

fn written(heap: &mut Heap, write: impl FnOnce(&Heap, &mut Out) -> Answer<()>) -> Answer {
    let mut out = Out::default();
    write(heap, &mut out)?;
    heap.text(out.into_text())
}

/// The text that `%v` prints.
pub fn printed(heap: &mut Heap, value: &Value) -> Answer<Rc<str>> {
    let text = string(heap, value)?;
    // Such texts may be many and long, and none of them may reach the output.
    heap.charge(text.len())?;
    Ok(text.into())
}

fn string(heap: &Heap, value: &Value) -> Answer<String> {
    let mut out = Out::default();
    format::value(heap, &mut out, value)?;
    Ok(out.into_text())
}

/// All values but nil as text, with a space between them.
fn joined(heap: &Heap, args: &[Value], change: impl Fn(String) -> String) -> Answer<String> {
    let mut out = Out::default();
    for (n, value) in args.iter().filter(|value| !matches!(value, Value::Nil)).enumerate() {
        if n > 0 {
            out.push(' ')?;
        }
        out.push_str(&change(string(heap, value)?))?;
    }
    Ok(out.into_text())
}

/// What `print` prints, with an escape. Nil is printed as an action prints it.
fn escaped(heap: &mut Heap, args: &[Value], escape: fn(&str) -> String) -> Answer {
    let mut printable = vec![];
    for value in args {
        printable.push(match value {
            Value::Nil => heap.text("<no value>")?,
            value => value.clone(),
        });
    }
    let mut out = Out::default();
    format::print(heap, &mut out, &printable)?;
    heap.text(escape(&out.into_text()))
}

/// Empty, as in sprig, if JSON cannot express the value.
fn json(heap: &mut Heap, args: &[Value], style: Style) -> Answer {
    let text = encoded(heap, style, &args[0])?.unwrap_or_default();
    heap.text(text)
}
