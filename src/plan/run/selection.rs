//! Which backup a restore takes.

/// Which backup a session restores, if a rule does not select one itself.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The newest backup that was complete at this time, RFC 3339.
    pub as_of: Option<String>,
    /// The backup that this BackupSession made, `namespace/name`.
    pub session: Option<String>,
}

impl Selection {
    /// `home` is the namespace of a session that is named without one.
    pub fn of(as_of: Option<String>, session: Option<String>, home: &str) -> Self {
        let full = |s: String| if s.contains('/') { s } else { format!("{home}/{s}") };
        Self { as_of, session: session.filter(|s| !s.is_empty()).map(full) }
    }
}
