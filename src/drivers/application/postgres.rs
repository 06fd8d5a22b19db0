//! PostgreSQL: dumps by `pg_dump` and `pg_dumpall`, loads by `pg_restore` and `psql`.
//!
//! A whole server is dumped as SQL with its roles and tablespaces. One database is dumped in the custom format, which is
//! loaded in a single transaction. Every object is dropped before it is created, so that a load can be repeated.

use serde::Deserialize;

use crate::contract::Failure;
use crate::contract::application::{Choice, Contents, Format, TlsMode};
use crate::drivers::application::meter::Client;
use crate::drivers::application::process::Command;
use crate::drivers::application::prologue::Prologue;
use crate::drivers::application::server::{Dumped, Facts, Plan, Server, some};
use crate::names::reason;

/// Milliseconds that a dump waits for a lock of another client.
const LOCK_TIMEOUT: &str = "--lock-wait-timeout=300000";
/// Most names of tables that are recorded; the manifest of a larger server has none.
const MOST_TABLES: usize = 50_000;
/// First version that knows all settings that the clients write: theirs.
const NEW: u64 = 170_000;
/// First bytes of the custom format.
const CUSTOM: &[u8] = b"PGDMP";
/// Database that always exists.
const MAINTENANCE: &str = "postgres";

/// Last lines of a dump of one database, and of a server.
const END: &str = "PostgreSQL database dump complete";
const END_OF_SERVER: &str = "PostgreSQL database cluster dump complete";

/// The clients of PostgreSQL.
#[derive(Debug)]
pub struct Postgres<'a> {
    server: &'a Server<'a>,
    env: Vec<(String, String)>,
    user: String,
}

#[derive(Deserialize)]
struct Session {
    database: String,
    user: Option<String>,
    application: Option<String>,
    address: Option<String>,
}

/// A string in SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in SQL.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(literal).collect::<Vec<_>>().join(", ")
}

impl<'a> Postgres<'a> {
    /// Prepares files and variables of the clients.
    pub fn new(server: &'a Server<'a>, env: &[(String, String)]) -> Result<Self, Failure> {
        let (connection, credentials) = (&server.work.connection, server.credentials);
        let user = credentials.first(&["POSTGRES_USER", "username", "user"]).unwrap_or("postgres").to_owned();
        let name = connection.server_name.as_ref().unwrap_or(&connection.host);
        let mut env = env.to_vec();
        let mut set = |name: &str, value: &str| env.push((name.to_owned(), value.to_owned()));
        set("PGHOST", name);
        if connection.server_name.is_some() {
            set("PGHOSTADDR", &address(&connection.host, connection.port)?);
        }
        set("PGPORT", &connection.port.to_string());
        set("PGUSER", &user);
        set("PGCONNECT_TIMEOUT", "10");
        set("PGAPPNAME", "lifeboat");
        if let Some(password) = credentials.first(&["POSTGRES_PASSWORD", "password"]) {
            // A colon and a backslash are escaped (PostgreSQL documentation, "The Password File").
            let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let line = format!("{}:{}:*:{}:{}\n", escaped(name), connection.port, escaped(&user), escaped(password));
            set("PGPASSFILE", &credentials.keep("pgpass", &line)?.to_string_lossy());
        }
        let mode = match connection.tls {
            TlsMode::Prefer => "prefer",
            TlsMode::Disable => "disable",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        };
        set("PGSSLMODE", mode);
        match &credentials.ca {
            Some(ca) => set("PGSSLROOTCERT", &ca.to_string_lossy()),
            None if matches!(connection.tls, TlsMode::VerifyCa | TlsMode::VerifyFull) => set("PGSSLROOTCERT", "system"),
            None => {}
        }
        if let Some((certificate, key)) = &credentials.certificate {
            set("PGSSLCERT", &certificate.to_string_lossy());
            set("PGSSLKEY", &key.to_string_lossy());
        }
        Ok(Self { server, env, user })
    }

    fn psql(&self, database: &str) -> Command {
        let argv =
            ["psql", "--no-psqlrc", "--no-password", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"];
        Command::new(argv, &self.env).with("PGDATABASE", database)
    }

    /// The result of a query whose only value is JSON.
    async fn query<T: for<'de> Deserialize<'de>>(&self, database: &str, sql: &str) -> Result<T, Failure> {
        let text = self.server.ask(&self.psql(database), sql).await?;
        serde_json::from_str(text.trim()).map_err(|e| {
            self.server.refuse(reason::APPLICATION_FAILED, &format!("an answer of the server cannot be read: {e}."))
        })
    }

    /// Waits for the server, and returns its version: as text and as a number.
    pub async fn version(&self) -> Result<(String, u64), Failure> {
        let sql = "SELECT current_setting('server_version') || E'\\n' || current_setting('server_version_num');";
        let text = self.server.wait(&self.psql(MAINTENANCE), sql).await?;
        let mut lines = text.lines();
        let version = lines.next().unwrap_or_default().to_owned();
        Ok((version, lines.next().and_then(|n| n.trim().parse().ok()).unwrap_or(0)))
    }

    /// What is in the server. `only` are databases; all if it is empty.
    pub async fn facts(&self, only: &[&str], with_tables: bool) -> Result<Facts, Failure> {
        let (version, number) = self.version().await?;
        let sql = "SELECT coalesce(json_agg(datname), '[]') FROM pg_database WHERE datallowconn AND NOT datistemplate;";
        let all: Vec<String> = self.query(MAINTENANCE, sql).await?;
        let mut facts = Facts { version, number: Some(number), ..Facts::default() };
        let (mut count, mut is_large) = (0, false);
        for name in all.into_iter().filter(|n| only.is_empty() || only.contains(&n.as_str())) {
            let tables = if with_tables && !is_large { self.tables(&name).await? } else { vec![] };
            count += tables.len();
            is_large |= count > MOST_TABLES;
            facts.contents.databases.insert(name, tables.into_iter().collect());
        }
        if is_large {
            facts.contents.databases.values_mut().for_each(std::collections::BTreeSet::clear);
            facts
                .warnings
                .push(format!("The server has more than {MOST_TABLES} tables, so their names are not recorded."));
        }
        if only.is_empty() {
            let sql = "SELECT coalesce(json_agg(rolname), '[]') FROM pg_roles WHERE rolname !~ '^pg_';";
            let roles: Vec<String> = self.query(MAINTENANCE, sql).await?;
            facts.contents.roles.extend(roles);
        }
        Ok(facts)
    }

    async fn tables(&self, database: &str) -> Result<Vec<String>, Failure> {
        let sql = "SELECT coalesce(json_agg(n.nspname || '.' || c.relname), '[]') FROM pg_class c \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' \
                   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema';";
        self.query(database, sql).await
    }

    /// The dump of what is selected, of a server of this version. The custom format is used only for servers that are
    /// as new as the clients: `pg_restore` writes settings that older servers do not know.
    pub fn dump(&self, number: u64) -> Plan {
        let parts = &self.server.work.selection.parts;
        if let [Choice { databases, args }] = parts.as_slice()
            && let [database] = databases.as_slice()
        {
            let (format, own, last_words): (_, &[&str], _) = if number >= NEW {
                // restic compresses, and finds equal data only in what is not compressed.
                (Format::Custom, &["--format=custom", "--compress=0"], None)
            } else {
                (Format::Database, &["--clean", "--if-exists"], Some(END.to_owned()))
            };
            let command = self.client("pg_dump", own, args).with("PGDATABASE", database);
            return Plan { clients: vec![Client { command, last_words }], format };
        }
        let everything = [Choice::default()];
        let parts = if parts.is_empty() { &everything[..] } else { parts };
        let mut clients = vec![];
        for Choice { databases, args } in parts {
            if databases.is_empty() {
                let command = self.client("pg_dumpall", &["--clean", "--if-exists"], args);
                let command = command.with("PGDATABASE", MAINTENANCE);
                clients.push(Client { command, last_words: Some(END_OF_SERVER.to_owned()) });
            }
            for database in databases {
                let command = self.client("pg_dump", &["--create", "--clean", "--if-exists"], args);
                clients
                    .push(Client { command: command.with("PGDATABASE", database), last_words: Some(END.to_owned()) });
            }
        }
        Plan { clients, ..Plan::default() }
    }

    fn client(&self, program: &str, own: &[&str], args: &[String]) -> Command {
        let lock = (!args.iter().any(|a| a.starts_with("--lock-wait-timeout"))).then(|| LOCK_TIMEOUT.to_owned());
        let argv = [program, "--no-password"].into_iter().chain(own.iter().copied()).map(str::to_owned);
        Command::new(argv.chain(lock).chain(args.iter().cloned()), &self.env)
    }

    /// Checks that a dump can be loaded, and returns the client that loads it.
    ///
    /// # Errors
    /// It cannot be loaded. Nothing was changed.
    pub async fn load(&self, dumped: Dumped<'_>, number: u64) -> Result<Loading, Failure> {
        let is_old = number < NEW;
        let format = match dumped.manifest {
            Some(manifest) => manifest.format,
            None if dumped.head.starts_with(CUSTOM) => Format::Custom,
            None => Format::Server,
        };
        if let Some(from) = dumped.manifest.and_then(|m| m.server_number).filter(|from| from / 10_000 > number / 10_000)
        {
            let text = format!(
                "the dump is of PostgreSQL {}, which is newer than the server ({}). Restore into a server of that version or a newer one. Nothing was changed.",
                from / 10_000,
                number / 10_000
            );
            return Err(self.server.refuse(reason::DUMP_TOO_NEW, &text));
        }
        let selection = &self.server.work.selection;
        let named = selection.databases();
        let contents = dumped.manifest.map(|m| &m.contents);
        let of_dump: Vec<&str> = contents.iter().flat_map(|c| c.databases.keys()).map(String::as_str).collect();
        if format == Format::Server {
            if !named.is_empty() && named != of_dump {
                let text = format!(
                    "the dump contains {}, and is loaded as a whole; remove the databases from the parameters of the task. Nothing was changed.",
                    if of_dump.is_empty() { "several databases".to_owned() } else { of_dump.join(", ") }
                );
                return Err(self.server.refuse(reason::INVALID, &text));
            }
            self.refuse_users(&of_dump).await?;
            let mut command = self.psql(MAINTENANCE);
            command.argv.push("--set=VERBOSITY=verbose".to_owned());
            return Ok(Loading { command, target: None, prologue: Some(Prologue::of_postgres(&self.user, is_old)) });
        }
        let target = match (named.as_slice(), of_dump.as_slice()) {
            ([one], _) | ([], [one]) => (*one).to_owned(),
            _ => {
                let text = "the dump is of one database whose name is not known; name the database to load it into with the parameter databases of the task. Nothing was changed.";
                return Err(self.server.refuse(reason::INVALID, text));
            }
        };
        self.refuse_users(&[&target]).await?;
        let sql = format!("SELECT to_json(EXISTS (SELECT FROM pg_database WHERE datname = {}));", literal(&target));
        if !self.query::<bool>(MAINTENANCE, &sql).await? {
            let sql = format!("CREATE DATABASE {} TEMPLATE template0;", identifier(&target));
            self.server.ask(&self.psql(MAINTENANCE), &sql).await?;
        }
        if format == Format::Database {
            let mut command = self.psql(&target);
            command.argv.push("--single-transaction".to_owned());
            return Ok(Loading { command, target: Some(target), prologue: Some(Prologue::of_database(is_old)) });
        }
        let own = ["pg_restore", "--no-password", "--clean", "--if-exists", "--exit-on-error", "--single-transaction"];
        // `pg_restore` connects only to the database that is named by an argument; a name alone is not a connection
        // string if it has no equals sign, and no URL.
        let database = format!("--dbname=dbname={}", conninfo(&target));
        let argv = own.into_iter().map(str::to_owned).chain([database]).chain(selection.args().iter().cloned());
        Ok(Loading { command: Command::new(argv, &self.env), target: Some(target), prologue: None })
    }

    /// Checks that nobody is connected to these databases; to any database, if there are none.
    async fn refuse_users(&self, databases: &[&str]) -> Result<(), Failure> {
        let which = if databases.is_empty() {
            String::new()
        } else {
            format!("AND datname IN ({})", list(databases.iter().copied()))
        };
        let sql = format!(
            "SELECT coalesce(json_agg(json_build_object('database', datname, 'user', usename, 'application', \
             application_name, 'address', host(client_addr))), '[]') FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname IS NOT NULL {which};"
        );
        let found: Vec<Session> = self.query(MAINTENANCE, &sql).await?;
        let say = |s: &Session| {
            let part = |text: &Option<String>| {
                text.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| "its own host".to_owned())
            };
            format!("{} ({}) from {} to database {}", part(&s.user), part(&s.application), part(&s.address), s.database)
        };
        let users: Vec<String> = found.iter().map(say).collect();
        if users.is_empty() {
            return Ok(());
        }
        let text = format!(
            "others are connected: {}. Stop what uses the databases, and restore again. Nothing was changed.",
            some(&users)
        );
        Err(self.server.refuse(reason::APPLICATION_IN_USE, &text))
    }

    /// What a load has brought back of a manifest.
    pub async fn found(&self, wanted: &Contents, target: Option<&str>) -> Result<Contents, Failure> {
        let with_tables = wanted.tables() > 0;
        let Some(target) = target else {
            let names: Vec<&str> = wanted.databases.keys().map(String::as_str).collect();
            let all = wanted.roles.is_empty();
            return Ok(self.facts(if all { &names } else { &[] }, with_tables).await?.contents);
        };
        let tables = if with_tables { self.tables(target).await? } else { vec![] };
        let mut found = Contents::default();
        // The dump may be loaded into a database with another name.
        for name in wanted.databases.keys() {
            found.databases.insert(name.clone(), tables.iter().cloned().collect());
        }
        Ok(found)
    }
}

/// The client that loads a dump.
#[derive(Debug)]
pub struct Loading {
    /// The client.
    pub command: Command,
    /// The database that a dump of one database is loaded into.
    pub target: Option<String>,
    /// The beginning of the dump of a server, with its roles.
    pub prologue: Option<Prologue>,
}

/// A value in a connection string (PostgreSQL documentation, "Keyword/Value Connection Strings").
fn conninfo(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The address of a host, for a connection whose certificate has another name.
fn address(host: &str, port: u16) -> Result<String, Failure> {
    use std::net::ToSocketAddrs as _;
    let found = (host, port).to_socket_addrs().map(|mut all| all.next());
    found.ok().flatten().map(|a| a.ip().to_string()).ok_or_else(|| {
        let text = format!("The address of {host} could not be looked up.");
        Failure::new(crate::contract::Class::Transient, reason::APPLICATION_UNREACHABLE, text)
    })
}
