//! Objects that tests create, as YAML that a user would write.

use super::harness::Site;

/// Password of every test's repository; must show up nowhere.
pub const PASSWORD: &str = "correct-horse-battery-staple";
/// Where a claim without mounts is mounted.
pub const CLAIM_MOUNT: &str = "/stash-data";

pub fn claim(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
"
    )
}

/// A Secret for the S3 server; `more` are further keys.
pub fn secret(site: &Site, name: &str, password: &str, more: &str) -> String {
    let (key, secret) = (site.s3("accessKey"), site.s3("secretKey"));
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{RESTIC_PASSWORD: {password}, AWS_ACCESS_KEY_ID: {key}, AWS_SECRET_ACCESS_KEY: {secret}{more}}}
"
    )
}

/// A Repository in the test's bucket, reached by this endpoint.
pub fn repository(site: &Site, name: &str, endpoint: &str, prefix: &str) -> String {
    let bucket = site.bucket();
    let bucket = bucket.file_name().unwrap().to_str().unwrap();
    format!(
        "apiVersion: stash.appscode.com/v1alpha1
kind: Repository
metadata: {{name: {name}}}
spec:
  backend:
    s3: {{endpoint: '{endpoint}', bucket: {bucket}, prefix: {prefix}, region: us-east-1}}
    storageSecretName: store
"
    )
}

/// Secret `store` and Repository `repo` in the test's bucket.
pub async fn store(site: &Site) {
    store_at(site, &site.s3("endpoint")).await;
}

/// The same, reached by another endpoint.
pub async fn store_at(site: &Site, endpoint: &str) {
    site.create(&secret(site, "store", PASSWORD, "")).await;
    site.create(&repository(site, "repo", endpoint, "a/b")).await;
}

/// A target that names a claim; `more` are further fields of the target.
pub fn of_claim(alias: &str, claim: &str, more: &str) -> String {
    format!("{{alias: {alias}, ref: {{apiVersion: v1, kind: PersistentVolumeClaim, name: {claim}}}{more}}}")
}

/// Rules of a target: the newest snapshots of all paths.
pub const LATEST: &str = ", rules: [{snapshots: [latest]}]";

/// A BackupConfiguration; `more` are lines below its spec.
pub fn configuration(name: &str, target: &str, more: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1beta1
kind: BackupConfiguration
metadata: {{name: {name}}}
spec:
  repository: {{name: repo}}
  target: {target}
  retentionPolicy: {{name: keep, keepLast: 5, prune: true}}
{more}"
    )
}

pub fn backup_session(name: &str, kind: &str, invoker: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1beta1
kind: BackupSession
metadata: {{name: {name}}}
spec: {{invoker: {{apiGroup: stash.appscode.com, kind: {kind}, name: {invoker}}}}}
"
    )
}

/// A RestoreSession; `more` are lines below its spec.
pub fn restore(name: &str, target: &str, more: &str) -> String {
    format!(
        "apiVersion: stash.appscode.com/v1beta1
kind: RestoreSession
metadata: {{name: {name}}}
spec:
  repository: {{name: repo}}
  target: {target}
{more}"
    )
}

/// A RestoreBatch or BackupBatch; `settings` is a line below its spec.
pub fn batch(kind: &str, name: &str, settings: &str, targets: &[String]) -> String {
    let members: Vec<String> = targets.iter().map(|t| format!("target: {t}")).collect();
    batch_of(kind, name, settings, &members)
}

/// The same; each member is a text of its fields, without braces.
pub fn batch_of(kind: &str, name: &str, settings: &str, members: &[String]) -> String {
    let members: Vec<String> = members.iter().map(|m| format!("  - {{{m}}}\n")).collect();
    let members = members.concat();
    format!(
        "apiVersion: stash.appscode.com/v1beta1
kind: {kind}
metadata: {{name: {name}}}
spec:
  repository: {{name: repo}}
  {settings}
  members:
{members}"
    )
}

/// A pod spec that mounts claims and does nothing.
fn idle(mounts: &[(&str, &str)], volumes: &str) -> String {
    let mounts: Vec<String> =
        mounts.iter().map(|(name, path)| format!("{{name: {name}, mountPath: {path}}}")).collect();
    format!(
        "terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: localhost/lifeboat-test-app:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'trap exit TERM; sleep infinity & wait']
        volumeMounts: [{}]
      volumes: [{volumes}]",
        mounts.join(", ")
    )
}

/// A Deployment; each volume is a claim of the same name.
pub fn deployment(name: &str, replicas: i32, mounts: &[(&str, &str)]) -> String {
    replicated("apps/v1", "Deployment", name, replicas, mounts)
}

/// A Deployment or ReplicaSet; each volume is a claim of the same name.
pub fn replicated(version: &str, kind: &str, name: &str, replicas: i32, mounts: &[(&str, &str)]) -> String {
    let volumes: Vec<String> = mounts
        .iter()
        .map(|(claim, _)| format!("{{name: {claim}, persistentVolumeClaim: {{claimName: {claim}}}}}"))
        .collect();
    let pod = idle(mounts, &volumes.join(", "));
    let selector =
        if version == "v1" { format!("{{app: {name}}}") } else { format!("{{matchLabels: {{app: {name}}}}}") };
    format!(
        "apiVersion: {version}
kind: {kind}
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {selector}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {pod}
"
    )
}

/// A workload that mounts a folder of its node at /data; `replicas` is a line of its spec.
pub fn on_host(kind: &str, name: &str, replicas: &str, folder: &str) -> String {
    let pod = idle(&[("data", "/data")], &format!("{{name: data, hostPath: {{path: '{folder}'}}}}"));
    format!(
        "apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}}}
spec:
  {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {pod}
"
    )
}

/// A StatefulSet whose template `data` is mounted at /data.
pub fn stateful_set(name: &str, replicas: i32) -> String {
    stateful_set_of(name, replicas, &["data"])
}

/// A StatefulSet with these templates, each mounted at / and its name.
pub fn stateful_set_of(name: &str, replicas: i32, templates: &[&str]) -> String {
    let paths: Vec<String> = templates.iter().map(|t| format!("/{t}")).collect();
    let mounts: Vec<(&str, &str)> = templates.iter().zip(&paths).map(|(t, p)| (*t, p.as_str())).collect();
    let pod = idle(&mounts, "");
    let claims: Vec<String> = templates.iter().map(|t| template(t)).collect();
    let claims = claims.concat();
    format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  serviceName: {name}
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {pod}
  volumeClaimTemplates:
{claims}"
    )
}

/// A template of a claim, as an item of a list.
pub fn template(name: &str) -> String {
    format!(
        "  - metadata: {{name: '{name}'}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
"
    )
}
