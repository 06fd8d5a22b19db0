//! Published manifests of Stash apply: each is valid, or only uses fields that are not implemented yet.

use std::collections::BTreeMap;

use lifeboat::admission::{Reason, check, kind_of, message, object_reason};

/// The only invalid manifest: the proposal restores a path that no volume of its target holds.
const WRONG: &str = "kep__4-restorebatch.yaml";

#[test]
fn each_is_valid_or_asks_only_for_what_is_not_built_yet() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut valid = Vec::new();
    let files = super::manifests("stash");
    assert_eq!(files.len(), 44);
    for (file, text) in &files {
        for object in lifeboat::yaml::read(text).unwrap() {
            let Some(kind) = object["kind"].as_str().and_then(kind_of) else { continue };
            let errors = check(kind, &object, None);
            match object_reason(&errors) {
                None => {
                    valid.push(file.as_str());
                    *counts.entry("valid").or_default() += 1;
                }
                Some(Reason::NotSupported) => *counts.entry("not supported").or_default() += 1,
                Some(Reason::Invalid) => {
                    assert_eq!(file, WRONG, "{}", message(&errors));
                    let wrong: Vec<_> = errors.into_iter().filter(|e| e.reason == Reason::Invalid).collect();
                    assert_eq!(
                        message(&wrong),
                        "spec.members[1].target.rules[0].paths[0]: \"/source/data\" lies outside every volume mount of the \
                         target (/var/www/html), so it cannot be restored; restore a path below a mount, or mount the \
                         volume where the path was backed up"
                    );
                    *counts.entry("invalid").or_default() += 1;
                }
            }
        }
    }
    assert_eq!(counts, BTreeMap::from([("valid", 23), ("not supported", 16), ("invalid", 1)]));
    assert_eq!(
        valid,
        [
            "concepts__crds__backupsession__backupsession.yaml",
            "concepts__crds__restorebatch__restorebatch.yaml",
            "guides__backends__local__examples__pvc.yaml",
            "guides__backends__s3__examples__minio.yaml",
            "guides__batch-backup__wordpress-backup__examples__backupbatch.yaml",
            "guides__batch-backup__wordpress-backup__examples__restorebatch.yaml",
            "guides__batch-backup__wordpress-backup__examples__restoresession.yaml",
            "guides__managed-backup__dedicated-storage-namespace__examples__restoresession.yaml",
            "guides__use-cases__clone-pvc__examples__deployment__restoresession.yaml",
            "guides__use-cases__clone-pvc__examples__statefulset__restoresession.yaml",
            "guides__use-cases__customize-backup-restore__examples__restore__resource_limit.yaml",
            "guides__use-cases__exclude-include-files__examples__restoresession-inlcude.yaml",
            "guides__use-cases__instant-backup__examples__backupsession.yaml",
            "guides__volumes__pvc__examples__restoresession.yaml",
            "guides__workloads__daemonset__examples__restoresession.yaml",
            "guides__workloads__deployment__examples__backupconfiguration.yaml",
            "guides__workloads__deployment__examples__restoresession.yaml",
            "guides__workloads__statefulset__examples__adv_restoresession.yaml",
            "guides__workloads__statefulset__examples__backupconfiguration.yaml",
            "guides__workloads__statefulset__examples__custom_restore.yaml",
            "kep__1-backupconfiguration.yaml",
            "kep__2-backupbatch.yaml",
            "kep__3-restoresession.yaml",
        ]
    );
}
