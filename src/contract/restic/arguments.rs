//! What arguments of restic do to existing files.

/// Whether restic, with these arguments, leaves existing files as they are, including files that an earlier restore has
/// begun to write and not finished. Such a restore runs once.
pub fn keeps_what_is_there(args: &[String]) -> bool {
    args.iter().any(|a| ["never", "if-newer"].contains(&a.trim_start_matches("--overwrite=")))
}

/// The same arguments, changed so that restic reads existing files: a file that an earlier run has left half written
/// may have the expected size and time.
pub fn reads_what_is_there(args: &[String]) -> Vec<String> {
    const TRUSTS: &str = "if-changed";
    let is_value = |at: usize| at > 0 && args[at - 1] == "--overwrite" && args[at] == TRUSTS;
    let always = |(at, arg): (usize, &String)| match arg.as_str() {
        "--overwrite=if-changed" => "--overwrite=always".to_owned(),
        _ if is_value(at) => "always".to_owned(),
        other => other.to_owned(),
    };
    args.iter().enumerate().map(always).collect()
}
