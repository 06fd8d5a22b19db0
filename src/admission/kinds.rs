//! The kinds that users write, as in the paths of the webhook.

/// Kinds that have defaults or rules, with the plural their webhook paths may use.
pub const KINDS: [(&str, &str); 9] = [
    ("BackupBatch", "backupbatches"),
    ("BackupBlueprint", "backupblueprints"),
    ("BackupConfiguration", "backupconfigurations"),
    ("BackupSession", "backupsessions"),
    ("Function", "functions"),
    ("Repository", "repositories"),
    ("RestoreBatch", "restorebatches"),
    ("RestoreSession", "restoresessions"),
    ("Task", "tasks"),
];

/// The kind that a webhook path names: by its plural, or by itself in any case.
pub fn kind_of(segment: &str) -> Option<&'static str> {
    let segment = segment.to_ascii_lowercase();
    KINDS.iter().find(|(kind, plural)| *plural == segment || kind.eq_ignore_ascii_case(&segment)).map(|(kind, _)| *kind)
}
