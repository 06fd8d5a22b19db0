//! Numbers. Functions of arithmetic take anything and calculate with 64 bits: what is not a number is 0.

use crate::gotemplate::call::{Function, text};
use crate::gotemplate::number;
use crate::gotemplate::value::{Answer, IntType, Value};

pub const FUNCTIONS: &[Function] = &[
    Function::open("add", 0, |_, args| Ok(long(args.iter().fold(0, |sum, n| sum.wrapping_add(to_integer(n)))))),
    Function::fixed("add1", 1, |_, args| Ok(long(to_integer(&args[0]).wrapping_add(1)))),
    Function::fixed("sub", 2, |_, args| Ok(long(to_integer(&args[0]).wrapping_sub(to_integer(&args[1]))))),
    Function::open("mul", 1, |_, args| {
        Ok(long(args.iter().fold(1, |product: i64, n| product.wrapping_mul(to_integer(n)))))
    }),
    Function::fixed("div", 2, |_, args| Ok(long(to_integer(&args[0]).wrapping_div(divisor(args)?)))),
    Function::fixed("mod", 2, |_, args| Ok(long(to_integer(&args[0]).wrapping_rem(divisor(args)?)))),
    Function::open("max", 1, |_, args| Ok(long(args.iter().map(to_integer).max().unwrap_or(0)))),
    Function::open("min", 1, |_, args| Ok(long(args.iter().map(to_integer).min().unwrap_or(0)))),
    Function::fixed("int", 1, |_, args| Ok(Value::Int(IntType::Int, to_integer(&args[0])))),
    Function::fixed("int64", 1, |_, args| Ok(long(to_integer(&args[0])))),
    Function::fixed("float64", 1, |_, args| Ok(Value::Float(to_float(&args[0])))),
    Function::fixed("atoi", 1, |_, args| {
        let n = text(args, 0)?.parse::<i64>().unwrap_or_else(|e| match e.kind() {
            std::num::IntErrorKind::PosOverflow => i64::MAX,
            std::num::IntErrorKind::NegOverflow => i64::MIN,
            _ => 0,
        });
        Ok(Value::Int(IntType::Int, n))
    }),
];

fn long(n: i64) -> Value {
    Value::Int(IntType::Int64, n)
}

fn divisor(args: &[Value]) -> Answer<i64> {
    match to_integer(&args[1]) {
        0 => Err("the divisor is 0".to_owned()),
        n => Ok(n),
    }
}

/// Any value as an integer. The part of a number after its point is cut off.
pub fn to_integer(value: &Value) -> i64 {
    match value {
        Value::Int(_, n) => *n,
        Value::Float(n) => truncated(*n),
        Value::Bool(b) => i64::from(*b),
        Value::Text(text) => number::integer(without_zero_decimals(text)).unwrap_or(0),
        Value::Nil | Value::List(_) | Value::Map(_) => 0,
    }
}

/// A number that does not fit becomes the smallest integer, as on the processors that Go's operators usually run on.
fn truncated(n: f64) -> i64 {
    // 2 to the power of 63.
    const END: f64 = 9_223_372_036_854_775_808.0;
    #[allow(clippy::cast_possible_truncation, reason = "checked")]
    if (-END..END).contains(&n) { n as i64 } else { i64::MIN }
}

/// `12.00` without `.00`.
fn without_zero_decimals(text: &str) -> &str {
    match text.trim_end_matches('0') {
        short if short.len() < text.len() => short.strip_suffix('.').unwrap_or(text),
        _ => text,
    }
}

fn to_float(value: &Value) -> f64 {
    match value {
        Value::Float(n) => *n,
        #[allow(clippy::cast_precision_loss, reason = "Go rounds, too")]
        Value::Int(_, n) => *n as f64,
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::Text(text) => {
            let is_number = |n: &f64| n.is_finite() || !text.contains(|c: char| c.is_ascii_digit());
            number::float(text).filter(is_number).unwrap_or(0.0)
        }
        Value::Nil | Value::List(_) | Value::Map(_) => 0.0,
    }
}
