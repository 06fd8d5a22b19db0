//! Templates of hooks: the language of Go's package text/template, with the functions of sprig that are pure.
//!
//! Hooks of Stash are written in it. Parsing refuses unknown functions and constructs, with their position. A template
//! that parses fails only by types of its data, by a verb of `printf`, or by a limit. Rendering is pure and bounded: equal
//! data makes equal output of at most 256 KiB, in a limited number of steps. Integers of the data are Go's `int32`, or
//! `int64` if they are larger, other numbers `float64`; a key that a map does not have is printed as `<no value>`
//! (`missingkey=default`).
//!
//! Functions of Go: `and` `or` `not` `eq` `ne` `lt` `le` `gt` `ge` `len` `index` `print` `printf` `println` `html` `js`
//! `urlquery`. Functions of sprig:
//!
//! - defaults and kinds: `default` `empty` `coalesce` `ternary` `kindOf` `kindIs`
//! - JSON and base64: `toJson` `toPrettyJson` `toRawJson` `fromJson` `b64enc` `b64dec`
//! - texts: `toString` `quote` `squote` `cat` `upper` `lower` `title` `untitle` `nospace` `trim` `trimAll` `trimPrefix`
//!   `trimSuffix` `contains` `hasPrefix` `hasSuffix` `replace` `repeat` `substr` `trunc` `abbrev` `indent` `nindent`
//!   `plural` `join` `split` `splitList`
//! - numbers: `add` `add1` `sub` `mul` `div` `mod` `max` `min` `int` `int64` `float64` `atoi`
//! - lists: `list` `slice` `first` `last` `rest` `initial` `append` `prepend` `concat` `reverse` `uniq` `without` `has`
//!   `sortAlpha`
//! - maps: `dict` `get` `set` `unset` `hasKey` `keys` `values` `pick` `omit`
//!
//! Not supported: functions of clocks, random numbers, the environment, networks and cryptography, regular expressions,
//! `call`, constants of characters, `break`, `continue`, `range` over numbers, complex and hexadecimal floating-point
//! numbers, and the verbs of `printf` that `format.rs` lists.
//!
//! It differs from Go on purpose, and `recorded.jsonl` has the cases: what can never be rendered is refused by the
//! parser even where it would not be reached; `b64dec` of a text that is not base64 is an error and not its message;
//! `nospace` keeps characters that are not ASCII; `title` knows no letters of title case; `rest`, `initial` and `concat`
//! without elements are `[]` and not null as JSON; half a character is U+FFFD; null as a map is an empty one, as a
//! missing key is; a float is never an `int`, even if it is a constant such as `2.0`. Keys are always in order. Without
//! the feature `float_roundtrip` of serde_json the last digit of a float that `fromJson` reads may differ.

mod ast;
mod call;
mod error;
mod escape;
mod format;
mod functions;
mod json;
mod lexer;
mod number;
mod parser;
mod render;
mod value;

#[cfg(test)]
mod tests;

pub use error::Error;

/// A template that can be rendered.
pub struct Template(parser::Parsed);

impl Template {
    /// Parses a template of at most 64 KiB.
    ///
    /// # Errors
    ///
    /// Wrong syntax, a function or a construct that is not supported, or a template that is too long or nested too deep.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parser::parse(text).map(Self)
    }

    /// The output for some data.
    ///
    /// # Errors
    ///
    /// A function that cannot use its arguments, or a limit of output, steps or nesting. The message tells types, and
    /// nothing of the data.
    pub fn render(&self, data: &serde_json::Value) -> Result<String, Error> {
        render::render(&self.0, data)
    }
}

/// The names of all functions, by topic.
pub fn functions() -> impl Iterator<Item = &'static str> {
    functions::all().map(|function| function.name)
}
