//! Applications: what a Job is asked to dump or to load, and how it connects.
//!
//! A dump is one file of a restic snapshot, written from the output of a client and never stored anywhere else. Beside
//! it, a second snapshot contains a [`Manifest`]. Nothing here is secret: credentials are files below
//! [`CREDENTIALS_DIR`](super::CREDENTIALS_DIR).

mod manifest;
mod work;

pub use crate::contract::application::manifest::{Contents, Format, MANIFEST_FILE, Manifest};
pub use crate::contract::application::work::{
    Addon, Choice, Connection, DUMP_TAG_PREFIX, Dump, KeyChange, Load, Selection, Step, TlsMode, Work,
};
