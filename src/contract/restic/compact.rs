//! Packed answers, for answers that would not fit into a termination message in readable form.
//!
//! A full id is 64 digits as text and 32 bytes in binary. A path is left out if the operator knows it by its number.
//! Only an answer that does not fit otherwise is packed. Nothing is guessed: what cannot be packed stays as it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::restic::snapshot::PinnedSnapshot;
use crate::digest::hex;

/// Snapshots of one host that always fit the answer of a preflight, with the longest name that a host can have (38
/// bytes each, in base64).
pub const MOST_PINS: usize = 64;
/// Paths of one host that always fit the answer of a backup: with all counts if these are of a usual size, and with
/// fewer counts if not.
pub const MOST_PATHS: usize = 255;

/// Bytes of a full id.
const ID: usize = 32;
/// Bytes of an id that only has to be distinguished from others; status shows half of it.
const SHORT_ID: usize = 8;
/// Bytes of a time: seconds since 1970, for 35,000 years.
const TIME: usize = 5;
/// Bytes of a pinned snapshot: id, time, and which of the paths asked for (from 1; 0 for none of them).
const PIN: usize = ID + TIME + 1;

/// One snapshot a backup made.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SnapshotMade {
    /// Full id.
    pub id: String,
    /// Path it holds.
    pub path: String,
    /// Files in it.
    pub total_files: u64,
    /// Files that were new.
    pub new_files: u64,
    /// Files that had changed.
    pub modified_files: u64,
    /// Files that had not changed.
    pub unmodified_files: u64,
    /// Bytes read.
    pub total_bytes: u64,
    /// Bytes added to the repository.
    pub uploaded_bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// How much an answer reports about each snapshot that a backup made.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Detail {
    /// Only that the snapshot exists.
    Id,
    /// Also what was read and stored.
    Sums,
    /// All counts.
    All,
}

/// A snapshot that a backup made, as far as its answer reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The snapshot. Unknown values are zero; the id may be its first digits only.
    pub made: SnapshotMade,
    /// Which values of it are known.
    pub detail: Detail,
}

/// The snapshots of a host, as the answer of a preflight contains them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Pins {
    /// What will be restored, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<PinnedSnapshot>,
    /// The same in packed form, if they would not fit, see [`Pins::unpacked`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<String>,
    /// Up to two owners of what will be restored, `uid:gid,uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl Pins {
    /// As a pin; `None` if there is nothing.
    pub fn write(&self) -> Option<Value> {
        (*self != Self::default()).then(|| serde_json::to_value(self).ok()).flatten()
    }

    /// From a pin; empty if the pin is not restic's.
    pub fn read(pin: Option<&Value>) -> Self {
        pin.and_then(|pin| Self::deserialize(pin).ok()).unwrap_or_default()
    }

    /// Packs the snapshots, if each of them can be packed. `paths` are those that were asked for, normalised.
    pub fn pack(&mut self, paths: &[String]) {
        let mut bytes = Vec::with_capacity(self.snapshots.len() * PIN);
        for pin in &self.snapshots {
            match pack_pin(pin, paths) {
                Some(packed) => bytes.extend(packed),
                None => return,
            }
        }
        if !bytes.is_empty() {
            self.packed = Some(URL_SAFE_NO_PAD.encode(bytes));
            self.snapshots.clear();
        }
    }

    /// The snapshots, packed or not. `paths` are those that were asked for, normalised.
    ///
    /// # Errors
    /// The packed text cannot be read.
    pub fn unpacked(&self, paths: &[String]) -> Result<Vec<PinnedSnapshot>, String> {
        let Some(packed) = &self.packed else { return Ok(self.snapshots.clone()) };
        let bytes = unpack(packed)?;
        if !bytes.len().is_multiple_of(PIN) {
            return Err(format!("{} bytes are no whole number of snapshots", bytes.len()));
        }
        bytes.chunks_exact(PIN).map(|b| unpack_pin(b, paths)).collect()
    }
}

fn pack_pin(pin: &PinnedSnapshot, paths: &[String]) -> Option<Vec<u8>> {
    let mut bytes = from_hex(&pin.id).filter(|id| id.len() == ID)?;
    let seconds = pin.time.parse::<Timestamp>().ok()?.as_second();
    let seconds = u64::try_from(seconds).ok()?.to_be_bytes();
    let (high, low) = seconds.split_at(seconds.len() - TIME);
    if high.iter().any(|b| *b != 0) {
        return None;
    }
    bytes.extend(low);
    bytes.push(match &pin.path {
        None => 0,
        Some(path) => u8::try_from(paths.iter().position(|p| p == path)? + 1).ok()?,
    });
    Some(bytes)
}

fn unpack_pin(bytes: &[u8], paths: &[String]) -> Result<PinnedSnapshot, String> {
    let (id, rest) = bytes.split_at(ID);
    let (time, which) = rest.split_at(TIME);
    let seconds = time.iter().fold(0i64, |all, b| all << 8 | i64::from(*b));
    let time = Timestamp::from_second(seconds).map_err(|e| format!("a time cannot be: {e}"))?;
    let path = match which.first().map_or(0, |n| usize::from(*n)) {
        0 => None,
        n => Some(paths.get(n - 1).cloned().ok_or_else(|| format!("nobody asked for path number {n}"))?),
    };
    Ok(PinnedSnapshot { id: hex(id), time: time.to_string(), path })
}

/// Packs what a backup made, in the order of its paths.
pub fn pack(made: &[SnapshotMade], detail: Detail) -> String {
    let mut bytes = vec![match detail {
        Detail::Id => 0u8,
        Detail::Sums => 1,
        Detail::All => 2,
    }];
    for one in made {
        // A success must not be lost because of an invalid id.
        let id = from_hex(&one.id).filter(|id| id.len() >= SHORT_ID).unwrap_or_else(|| vec![0; SHORT_ID]);
        bytes.extend(&id[..SHORT_ID]);
        if detail >= Detail::Sums {
            [one.total_files, one.total_bytes, one.uploaded_bytes].iter().for_each(|n| push(&mut bytes, *n));
        }
        if detail == Detail::All {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as many as a number holds")]
            let milliseconds = (one.seconds * 1000.0) as u64;
            let counts = [one.new_files, one.modified_files, one.unmodified_files, milliseconds];
            counts.iter().for_each(|n| push(&mut bytes, *n));
        }
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a backup made of these paths.
///
/// # Errors
/// The text cannot be read.
pub fn unpack_made(text: &str, paths: &[String]) -> Result<Vec<Saved>, String> {
    let bytes = unpack(text)?;
    let (detail, mut rest) = match bytes.split_first() {
        Some((0, rest)) => (Detail::Id, rest),
        Some((1, rest)) => (Detail::Sums, rest),
        Some((2, rest)) => (Detail::All, rest),
        _ => return Err("it begins with nothing that is known".to_owned()),
    };
    let mut all = vec![];
    while !rest.is_empty() {
        let (id, after) = rest.split_at_checked(SHORT_ID).ok_or("it ends within an id")?;
        rest = after;
        let id = if id.iter().all(|b| *b == 0) { String::new() } else { hex(id) };
        let mut made =
            SnapshotMade { id, path: paths.get(all.len()).cloned().unwrap_or_default(), ..Default::default() };
        if detail >= Detail::Sums {
            made.total_files = pull(&mut rest)?;
            made.total_bytes = pull(&mut rest)?;
            made.uploaded_bytes = pull(&mut rest)?;
        }
        if detail == Detail::All {
            made.new_files = pull(&mut rest)?;
            made.modified_files = pull(&mut rest)?;
            made.unmodified_files = pull(&mut rest)?;
            #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
            let seconds = pull(&mut rest)? as f64 / 1000.0;
            made.seconds = seconds;
        }
        all.push(Saved { made, detail });
    }
    Ok(all)
}

fn unpack(text: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|e| format!("it is not packed as it should be: {e}"))
}

/// Seven bits per byte, the lowest first; the last byte has its highest bit clear.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(low | 0x80);
    }
}

fn pull(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("it ends within a number")?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number has no end".to_owned())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    // Only the form that restic writes is accepted: capital letters would be lost.
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}
