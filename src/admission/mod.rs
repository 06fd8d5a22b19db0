//! Admission: what a written object means, and whether it makes sense.
//!
//! [`default`] brings the dialects of the API into one form; [`validate`] says
//! what is wrong, per field; both refuse an object beyond its [`bounds`] before they look into it. Both are pure and work from JSON, and the
//! controller calls the same two doors, so an object is judged alike with and
//! without the webhook. [`review`] answers the API server's questions,
//! [`server`] carries them over TLS with the certificates of [`certs`]. Nothing
//! here reads the cluster: whether a named object exists is the controller's.

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
