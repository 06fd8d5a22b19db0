//! Changes of documents, drawn by dice that fall alike in every run.

use serde_json::{Value, json};

/// Numbers that look random and are the same in every run (xorshift64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below another one; 0 below 0.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or_default() % below.max(1)
    }
}

/// Values that are at an edge of something.
pub fn edge(dice: &mut Dice) -> Value {
    let all = [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(i32::MAX),
        json!(i32::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("a".repeat(300)),
        json!("\u{e9}\u{2603}\u{1f600}/../\u{0}"),
        json!("latest"),
        json!("2147483647"),
        json!("9999-12-31T23:59:59Z"),
        json!("100000h"),
        json!("$(A) ${B} %s"),
        json!([]),
        json!({}),
        json!([[[[{}]]]]),
    ];
    all[dice.roll(all.len())].clone()
}

/// Places in a document.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                places(inner, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                places(inner, &format!("{at}/{i}"), all);
            }
        }
        _ => {}
    }
}

/// Changes a document at one place.
pub fn mutate_document(document: &mut Value, dice: &mut Dice) {
    let mut all = vec![];
    places(document, "", &mut all);
    let (to, from) = (all[dice.roll(all.len())].clone(), all[dice.roll(all.len())].clone());
    let other = document.pointer(&from).cloned().unwrap_or_default();
    let Some(place) = document.pointer_mut(&to) else { return };
    match (dice.roll(4), place) {
        (0, Value::Object(map)) if !map.is_empty() => {
            let key = map.keys().nth(dice.roll(map.len())).cloned().unwrap_or_default();
            map.remove(&key);
        }
        (1, Value::Array(list)) if !list.is_empty() => {
            let one = list[dice.roll(list.len())].clone();
            list.extend(std::iter::repeat_n(one, 1 + dice.roll(40)));
        }
        (2, place) => *place = other,
        (_, place) => *place = edge(dice),
    }
}
