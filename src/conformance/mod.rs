//! What every system that restores keeps to.
//!
//! A system brings a [`Subject`](acts::Subject), and is held to the same as all others: it looks without writing; what it
//! does is counted; a reply that is lost is looked up, and nothing is done twice; it ends soon after it is told to; and
//! nothing secret is shown. What its planning half owes, the exhaustive search of `plan::restore` finds out, which has a
//! member of the second system; and what it needs to exist at all, [`shape`] counts.

mod acts;
mod mock;
mod restic;
mod shape;
