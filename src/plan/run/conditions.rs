//! Conditions as a pure merge: a time changes only with the value of its condition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::Condition;
use crate::names::condition as types;

/// Value of a condition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// It could not be determined.
    Unknown,
}

impl Value {
    /// The value as text in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        if b { Self::True } else { Self::False }
    }
}

/// Sets a condition. Its time changes only with its value; an equal condition is left as it is.
pub fn set(
    list: &mut Vec<Condition>,
    type_: &str,
    value: impl Into<Value>,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) {
    let (value, message) = (value.into(), message.into());
    let found = list.iter_mut().find(|c| c.type_ == type_);
    let fresh = |time| Condition {
        type_: type_.to_owned(),
        status: value.as_str().to_owned(),
        last_transition_time: time,
        observed_generation: None,
        severity: None,
        reason: Some(reason.to_owned()),
        message: Some(message),
    };
    match found {
        Some(old) if old.status == value.as_str() => {
            let time = old.last_transition_time.clone();
            *old = fresh(time);
        }
        Some(old) => *old = fresh(whole_second(now)),
        None => list.push(fresh(whole_second(now))),
    }
    order(list);
}

/// Sorts the conditions: Ready first, because users read from the top; the others by name, so that the order is stable.
pub fn order(list: &mut [Condition]) {
    list.sort_by(|a, b| (a.type_ != types::READY, &a.type_).cmp(&(b.type_ != types::READY, &b.type_)));
}

/// Removes a condition.
pub fn remove(list: &mut Vec<Condition>, type_: &str) {
    list.retain(|c| c.type_ != type_);
}

/// Whether a condition has this value.
pub fn is(list: &[Condition], type_: &str, value: Value) -> bool {
    list.iter().any(|c| c.type_ == type_ && c.status == value.as_str())
}

/// What kstatus and GitOps tools read: one of three states, never two at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Health {
    /// As asked: Ready.
    Ready,
    /// On its way: Reconciling.
    Reconciling,
    /// Stuck until a user acts: Stalled.
    Stalled,
}

/// Message of Reconciling. Only Ready holds the actual text.
const IN_PROGRESS: &str = "In progress. The condition Ready says what is being done, or what it waits for.";
/// Message of Stalled.
const NO_FURTHER: &str = "Over, or stuck until somebody acts. The condition Ready says why.";

/// Sets the kstatus conditions. All have the reason; Ready also has the text.
pub fn set_health(list: &mut Vec<Condition>, health: Health, reason: &str, message: &str, now: Timestamp) {
    set(list, types::READY, health == Health::Ready, reason, message, now);
    let others =
        [(types::RECONCILING, Health::Reconciling, IN_PROGRESS), (types::STALLED, Health::Stalled, NO_FURTHER)];
    for (type_, state, text) in others {
        if health == state {
            set(list, type_, true, reason, text, now);
        } else {
            remove(list, type_);
        }
    }
}

/// Time as an API server keeps it: whole seconds.
pub fn whole_second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    #[test]
    fn time_moves_only_with_the_value() {
        let mut list = vec![];
        set(&mut list, "B", true, "R", "m", at(10));
        set(&mut list, "A", false, "R", "m", at(11));
        assert_eq!(list.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(), ["A", "B"]);
        set(&mut list, "B", true, "R2", "other", at(20));
        assert_eq!(list[1].last_transition_time.0, at(10));
        assert_eq!(list[1].message.as_deref(), Some("other"));
        set(&mut list, "B", false, "R2", "other", at(30));
        assert_eq!(list[1].last_transition_time.0, at(30));
    }

    #[test]
    fn health_is_one_of_three() {
        let mut list = vec![];
        for (health, ready, other) in [
            (Health::Reconciling, "False", Some("Reconciling")),
            (Health::Stalled, "False", Some("Stalled")),
            (Health::Ready, "True", None),
        ] {
            set_health(&mut list, health, "R", "m", at(1));
            let get = |t: &str| list.iter().find(|c| c.type_ == t).map(|c| c.status.as_str());
            assert_eq!(get("Ready"), Some(ready));
            assert_eq!(list.len(), 1 + usize::from(other.is_some()));
            assert!(other.is_none_or(|t| get(t) == Some("True")));
            // The text must also be true for an object that only waits.
            let said = list.iter().find(|c| c.type_ == "Reconciling").and_then(|c| c.message.as_deref());
            assert!(said.is_none_or(|text| text.contains("or what it waits for")), "{said:?}");
            let texts: std::collections::BTreeSet<_> = list.iter().map(|c| &c.message).collect();
            assert_eq!((list[0].type_.as_str(), texts.len()), ("Ready", list.len()), "Ready first, and no text twice");
        }
    }
}
