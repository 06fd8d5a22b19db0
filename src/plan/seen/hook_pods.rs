//! Pods of a target that a hook may act on.

/// A running pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookPod {
    /// Name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Its address.
    pub ip: Option<String>,
    /// Its containers, in the order of its spec.
    pub containers: Vec<HookContainer>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookContainer {
    /// Name.
    pub name: String,
    /// Its ports that have a name.
    pub ports: Vec<(String, u16)>,
}

/// The pods of a target, sorted by name; or why there are none, and whether there will be none.
pub type HookPods = Result<Vec<HookPod>, NoPods>;

/// Why no pods are known.
#[derive(Clone, Debug, PartialEq)]
pub enum NoPods {
    /// They could not be read.
    Unknown(String),
    /// The target does not exist, or has no pods by its nature.
    Never(String),
}
