//! Admission: sets defaults and validates objects.
//!
//! [`default`] converts the dialects of the API to one form; [`validate`] reports errors per field. Both first reject
//! an object that exceeds its [`bounds`]. Both are pure and work on JSON. The controller calls the same two
//! functions, so the rules are the same with and without the webhook. [`review`] answers admission reviews of the API
//! server, and [`server`] serves them over TLS with the certificates of [`certs`]. This module does not read the
//! cluster: the controller checks whether referenced objects exist.

pub mod bounds;
pub mod certs;
pub mod default;
pub mod elsewhere;
pub mod error;
pub mod kinds;
pub mod notice;
mod request;
pub mod review;
pub mod rights;
pub mod seal;
pub mod server;
pub mod validate;

pub use default::default;
pub use elsewhere::{Elsewhere, Owners};
pub use error::{FieldError, Reason, message, object_reason};
pub use kinds::{KINDS, kind_of};
pub use rights::Gate;
pub use validate::check;
