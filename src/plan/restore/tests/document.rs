//! A session as the API server keeps it: a JSON document.

use std::cell::OnceCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use serde::Deserialize as _;
use serde_json::Value;

use crate::api::{RestoreBatch, RestoreSession};
use crate::plan::restore::run::RestoreRun;

/// A session as the API server keeps it. It is parsed once after each write.
#[derive(Clone, Debug)]
pub struct Document {
    object: Value,
    read: OnceCell<Rc<RestoreRun>>,
}

impl Document {
    pub fn new(object: Value) -> Self {
        Self { object, read: OnceCell::new() }
    }

    pub fn run(&self) -> Rc<RestoreRun> {
        self.read.get_or_init(|| Rc::new(self.parse())).clone()
    }

    fn parse(&self) -> RestoreRun {
        if self.object["kind"] == "RestoreBatch" {
            RestoreRun::of_batch(&RestoreBatch::deserialize(&self.object).unwrap())
        } else {
            RestoreRun::of_session(&RestoreSession::deserialize(&self.object).unwrap())
        }
    }
}

impl Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.object
    }
}

impl DerefMut for Document {
    /// Any change of the document causes it to be parsed again.
    fn deref_mut(&mut self) -> &mut Value {
        self.read.take();
        &mut self.object
    }
}
