//! Database servers of a test: each in a pod, with a Service, a Secret and an AppBinding of its name.

use super::super::harness::{Site, eventually};

/// Password of every server; must show up nowhere.
pub const PASSWORD: &str = "violet-tractor-seventeen";

/// Which server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Postgres17,
    Postgres15,
    MariaDb,
    Valkey,
}

impl Kind {
    /// Argument of the image, type of the AppBinding, port, user.
    fn facts(self) -> (&'static str, &'static str, u16, &'static str) {
        match self {
            Self::Postgres17 => ("postgres17", "postgres", 5432, "postgres"),
            Self::Postgres15 => ("postgres15", "postgres", 5432, "postgres"),
            Self::MariaDb => ("mariadb", "mariadb", 3306, "root"),
            Self::Valkey => ("valkey", "redis", 6379, ""),
        }
    }
}

/// A running server.
pub struct Server<'s> {
    site: &'s Site,
    pub name: String,
    kind: Kind,
    /// No connection by network without TLS.
    tls: bool,
}

impl<'s> Server<'s> {
    /// Starts a server with its data in the pod.
    pub async fn start(site: &'s Site, name: &str, kind: Kind) -> Self {
        Self::start_on(site, name, kind, "emptyDir: {}").await
    }

    /// Starts a server with its data on this volume.
    pub async fn start_on(site: &'s Site, name: &str, kind: Kind, volume: &str) -> Self {
        Self::begin(site, name, kind, volume, false).await
    }

    /// Starts a server that accepts no connection by network without TLS. Its certificate is in Secret `NAME-tls`.
    pub async fn start_with_tls(site: &'s Site, name: &str, kind: Kind) -> Self {
        Self::begin(site, name, kind, "emptyDir: {}", true).await
    }

    async fn begin(site: &'s Site, name: &str, kind: Kind, volume: &str, tls: bool) -> Self {
        let (serve, ..) = kind.facts();
        let (folder, secret) =
            if tls { ("/tls", format!("secret: {{secretName: {name}-tls}}")) } else { ("", "emptyDir: {}".into()) };
        site.create(&connection(name, kind)).await;
        site.create(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: localhost/lifeboat-test-databases:1
    imagePullPolicy: IfNotPresent
    args: [{serve}]
    env:
    - {{name: POSTGRES_PASSWORD, value: {PASSWORD}}}
    - {{name: MARIADB_ROOT_PASSWORD, value: {PASSWORD}}}
    - {{name: VALKEY_PASSWORD, value: {PASSWORD}}}
    - {{name: TLS, value: '{folder}'}}
    volumeMounts: [{{name: data, mountPath: /var/lib/data}}, {{name: tls, mountPath: /tls}}]
  volumes: [{{name: data, {volume}}}, {{name: tls, {secret}}}]
"
        ))
        .await;
        let server = Self { site, name: name.to_owned(), kind, tls };
        server.answers().await;
        server
    }

    /// Waits until the server answers.
    pub async fn answers(&self) {
        let answer = eventually(60, async || self.try_sql("", self.hello()).ok());
        answer.await.unwrap_or_else(|| {
            let log = self.site.log_of(&self.name);
            panic!("server {} does not answer: {log:?}\n{:?}", self.name, self.try_sql("", self.hello()))
        });
    }

    fn hello(&self) -> &'static str {
        if self.kind == Kind::Valkey { "PING" } else { "SELECT 1;" }
    }

    /// Runs statements in the pod of the server, and gives what they print.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        self.try_sql(database, statements).unwrap_or_else(|e| panic!("{}: {e}\n{statements}", self.name))
    }

    /// The same, or why it failed.
    pub fn try_sql(&self, database: &str, statements: &str) -> Result<String, String> {
        let words: Vec<&str> = match self.kind {
            Kind::Postgres17 | Kind::Postgres15 => {
                let database = if database.is_empty() { "postgres" } else { database };
                vec!["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", "/run/databases", "-d", database]
            }
            Kind::MariaDb => {
                let mut words = vec!["mariadb", "-uroot", "--skip-ssl", "--batch", "--raw", "--skip-column-names"];
                words.extend(Some(database).filter(|d| !d.is_empty()));
                words
            }
            Kind::Valkey if self.tls => vec!["valkey-cli", "-e", "--tls", "--insecure"],
            Kind::Valkey => vec!["valkey-cli", "-e"],
        };
        // The password of the clients is the value that the container has.
        let script = "export MYSQL_PWD=$MARIADB_ROOT_PASSWORD REDISCLI_AUTH=$VALKEY_PASSWORD; exec \"$@\"";
        let exec = [&["exec", "-i", &self.name, "--", "sh", "-c", script, "sh"], words.as_slice()].concat();
        let mut command = self.site.kubectl_command(&exec);
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = statements.to_owned();
        let feeder = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, text.as_bytes())));
        let out = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// Starts statements that hold a connection, and gives the process, which must be killed.
    pub fn hold(&self, database: &str, statements: &str) -> std::process::Child {
        let exec = [
            "exec",
            &self.name,
            "--",
            "psql",
            "-U",
            "postgres",
            "-h",
            "/run/databases",
            "-d",
            database,
            "-c",
            statements,
        ];
        self.site.kubectl_command(&exec).stdout(std::process::Stdio::null()).spawn().unwrap()
    }

    /// Kills the server as the kernel does; it starts again.
    pub fn kill(&self) {
        self.site.kubectl(&["exec", &self.name, "--", "sh", "-c", "kill -9 -1 || true"]);
    }

    /// Target of a session; `more` are further fields.
    pub fn target(&self, alias: &str, more: &str) -> String {
        target(&self.name, alias, more)
    }
}

/// A target that is an AppBinding of this name.
pub fn target(name: &str, alias: &str, more: &str) -> String {
    let reference = format!("{{apiVersion: appcatalog.appscode.com/v1alpha1, kind: AppBinding, name: {name}}}");
    format!("{{alias: {alias}, ref: {reference}{more}}}")
}

/// Service, Secret and AppBinding of a server.
pub fn connection(name: &str, kind: Kind) -> String {
    let (_, type_, port, user) = kind.facts();
    let user = if user.is_empty() { String::new() } else { format!("username: {user}, ") };
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{{user}password: {PASSWORD}}}
---
apiVersion: appcatalog.appscode.com/v1alpha1
kind: AppBinding
metadata: {{name: {name}}}
spec:
  type: {type_}
  clientConfig: {{service: {{name: {name}, port: {port}, scheme: tcp}}}}
  secret: {{name: {name}}}
"
    )
}
