//! The kinds that the tests read and write, by name.

use kube::api::{ApiResource, GroupVersionKind};

/// The resource of a kind.
pub fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "Deployment" => ("apps", "v1", "deployments"),
        "StatefulSet" => ("apps", "v1", "statefulsets"),
        "DaemonSet" => ("apps", "v1", "daemonsets"),
        "ReplicaSet" => ("apps", "v1", "replicasets"),
        "ReplicationController" => ("", "v1", "replicationcontrollers"),
        "HorizontalPodAutoscaler" => ("autoscaling", "v2", "horizontalpodautoscalers"),
        "AppBinding" => ("appcatalog.appscode.com", "v1alpha1", "appbindings"),
        "Service" => ("", "v1", "services"),
        "Job" => ("batch", "v1", "jobs"),
        "Repository" => ("stash.appscode.com", "v1alpha1", "repositories"),
        "BackupBlueprint" => ("stash.appscode.com", "v1beta1", "backupblueprints"),
        "BackupConfiguration" => ("stash.appscode.com", "v1beta1", "backupconfigurations"),
        "BackupBatch" => ("stash.appscode.com", "v1beta1", "backupbatches"),
        "BackupSession" => ("stash.appscode.com", "v1beta1", "backupsessions"),
        "RestoreSession" => ("stash.appscode.com", "v1beta1", "restoresessions"),
        "RestoreBatch" => ("stash.appscode.com", "v1beta1", "restorebatches"),
        "Role" => ("rbac.authorization.k8s.io", "v1", "roles"),
        "RoleBinding" => ("rbac.authorization.k8s.io", "v1", "rolebindings"),
        "ServiceAccount" => ("", "v1", "serviceaccounts"),
        "Snapshot" => ("repositories.stash.appscode.com", "v1alpha1", "snapshots"),
        "Secret" => ("", "v1", "secrets"),
        "Event" => ("", "v1", "events"),
        "Pod" => ("", "v1", "pods"),
        "Namespace" => ("", "v1", "namespaces"),
        "Node" => ("", "v1", "nodes"),
        "PersistentVolume" => ("", "v1", "persistentvolumes"),
        "PersistentVolumeClaim" => ("", "v1", "persistentvolumeclaims"),
        other => panic!("the harness does not know kind {other}"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}
