//! MariaDB and MySQL: dumps by `mariadb-dump`, loads by `mariadb`.
//!
//! A dump is one transaction, so that it is consistent for InnoDB and locks nothing. Users and grants of MariaDB are
//! dumped as statements, not as tables of the server, whose format changes between versions.

use std::collections::BTreeSet;

use crate::contract::Failure;
use crate::contract::application::{Choice, Contents, TlsMode};
use crate::drivers::application::meter::Client;
use crate::drivers::application::process::Command;
use crate::drivers::application::server::{Dumped, Facts, Plan, Server, some};
use crate::names::reason;

/// Databases of the server itself.
const OWN: &str = "'mysql', 'information_schema', 'performance_schema', 'sys'";
/// Last line of a dump.
const END: &str = "-- Dump completed";
/// Seconds that a statement waits for a lock of another client.
const LOCK_TIMEOUT: u32 = 300;
/// Most names of tables that are recorded; the manifest of a larger server has none.
const MOST_TABLES: usize = 50_000;

/// The clients of MariaDB.
#[derive(Debug)]
pub struct Mysql<'a> {
    server: &'a Server<'a>,
    env: Vec<(String, String)>,
    options: String,
    user: String,
}

/// A string in SQL, as hexadecimal digits: no name needs to be quoted.
fn literal(text: &str) -> String {
    format!("0x{}", crate::digest::hex(text.as_bytes()))
}

/// A value in an option file (MariaDB documentation, "Configuring MariaDB with Option Files").
fn option(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{escaped}\"")
}

/// Lines of hexadecimal digits, as the texts that they stand for.
fn unhex(line: &str) -> String {
    let digits: Vec<u8> = line.trim().bytes().collect();
    let bytes = digits.chunks(2).filter_map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}

impl<'a> Mysql<'a> {
    /// Prepares the option file of the clients.
    pub fn new(server: &'a Server<'a>, env: &[(String, String)]) -> Result<Self, Failure> {
        let (connection, credentials) = (&server.work.connection, server.credentials);
        if connection.server_name.as_ref().is_some_and(|name| *name != connection.host) {
            let text = "spec.clientConfig.serverName cannot be checked by the clients of MariaDB. Connect to the name that the certificate contains.";
            return Err(server.refuse(reason::INVALID, text));
        }
        let user = credentials.first(&["username", "user", "MYSQL_USER"]).unwrap_or("root");
        let mut lines = vec![
            "[client]".to_owned(),
            format!("host={}", option(&connection.host)),
            format!("port={}", connection.port),
            "protocol=tcp".to_owned(),
            format!("user={}", option(user)),
        ];
        if let Some(password) = credentials.first(&["password", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD"]) {
            lines.push(format!("password={}", option(password)));
        }
        let tls: &[&str] = match connection.tls {
            TlsMode::Disable => &["skip-ssl"],
            TlsMode::Prefer => &["disable-ssl-verify-server-cert"],
            TlsMode::Require => &["ssl", "disable-ssl-verify-server-cert"],
            TlsMode::VerifyCa | TlsMode::VerifyFull => &["ssl", "ssl-verify-server-cert"],
        };
        lines.extend(tls.iter().map(|line| (*line).to_owned()));
        if let Some(ca) = &credentials.ca {
            lines.push(format!("ssl-ca={}", option(&ca.to_string_lossy())));
        }
        if let Some((certificate, key)) = &credentials.certificate {
            let [certificate, key] = [certificate, key].map(|p| option(&p.to_string_lossy()));
            lines.extend([format!("ssl-cert={certificate}"), format!("ssl-key={key}")]);
        }
        // Of the client that loads and asks; that which dumps does not know these options.
        lines.extend(["[mysql]".to_owned(), "connect-timeout=10".to_owned()]);
        lines.push(format!("init-command=\"SET SESSION lock_wait_timeout={LOCK_TIMEOUT}\""));
        let file = credentials.keep("client.cnf", &(lines.join("\n") + "\n"))?;
        let options = format!("--defaults-file={}", file.display());
        Ok(Self { server, env: env.to_vec(), options, user: user.to_owned() })
    }

    /// The user that dumps and loads.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        // The option file must be the first argument.
        Command::new([program, &self.options].into_iter().chain(args.iter().copied()), &self.env)
    }

    async fn lines(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let command = self.client("mariadb", &["--batch", "--skip-column-names", "--raw"]);
        let text = self.server.ask(&command, sql).await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Waits for the server, and returns its version.
    pub async fn version(&self) -> Result<String, Failure> {
        let command = self.client("mariadb", &["--batch", "--skip-column-names", "--raw"]);
        Ok(self.server.wait(&command, "SELECT VERSION();").await?.trim().to_owned())
    }

    /// What is in the server. `only` are databases; all if it is empty.
    pub async fn facts(&self, only: &[&str], with_tables: bool) -> Result<Facts, Failure> {
        let mut facts = Facts { version: self.version().await?, ..Facts::default() };
        let sql = format!("SELECT HEX(schema_name) FROM information_schema.schemata WHERE schema_name NOT IN ({OWN});");
        let databases = self.lines(&sql).await?.iter().map(|l| unhex(l)).collect::<Vec<_>>();
        let wanted = |name: &str| only.is_empty() || only.contains(&name);
        for name in databases.into_iter().filter(|n| wanted(n)) {
            facts.contents.databases.insert(name, BTreeSet::new());
        }
        if with_tables {
            let sql = format!(
                "SELECT CONCAT(HEX(table_schema), ' ', HEX(table_name)) FROM information_schema.tables \
                 WHERE table_schema NOT IN ({OWN}) LIMIT {};",
                MOST_TABLES + 1
            );
            let lines = self.lines(&sql).await?;
            if lines.len() > MOST_TABLES {
                let text = format!("The server has more than {MOST_TABLES} tables, so their names are not recorded.");
                facts.warnings.push(text);
            } else {
                for (database, table) in lines.iter().filter_map(|l| l.split_once(' ')) {
                    if let Some(tables) = facts.contents.databases.get_mut(&unhex(database)) {
                        tables.insert(unhex(table));
                    }
                }
            }
        }
        if only.is_empty() {
            match self.users(&facts.version).await {
                Ok(users) => facts.contents.roles = users,
                Err(text) => facts.warnings.push(text),
            }
        }
        Ok(facts)
    }

    /// Users of MariaDB.
    ///
    /// # Errors
    /// Why users and grants are not in a dump.
    async fn users(&self, version: &str) -> Result<BTreeSet<String>, String> {
        if !version.contains("MariaDB") {
            return Err(format!("The server is MySQL {version}: its users and grants are not in the dump."));
        }
        let sql = "SELECT HEX(CONCAT(user, '@', host)) FROM mysql.user WHERE user NOT IN ('', 'mariadb.sys', 'PUBLIC', 'mariadb_dump_import_role');";
        let lines = self.lines(sql).await;
        let lines =
            lines.map_err(|f| format!("Users and grants cannot be read, and are not in the dump: {}", f.message))?;
        Ok(lines.iter().map(|l| unhex(l)).collect())
    }

    /// The dump of what is selected, of a server with these contents.
    pub fn dump(&self, facts: &Facts) -> Plan {
        let selection = &self.server.work.selection;
        let everything = [Choice::default()];
        let parts = if selection.parts.is_empty() { &everything[..] } else { &selection.parts };
        let client = |command| Client { command, last_words: Some(END.to_owned()) };
        let mut clients = vec![];
        if selection.databases().is_empty() && !facts.contents.roles.is_empty() {
            // A user that exists keeps its password.
            clients.push(client(self.client("mariadb-dump", &["--system=users", "--insert-ignore"])));
        }
        for Choice { databases, args } in parts {
            let all: Vec<&str> = facts.contents.databases.keys().map(String::as_str).collect();
            let named: Vec<&str> =
                if databases.is_empty() { all } else { databases.iter().map(String::as_str).collect() };
            let own = [
                "--single-transaction",
                "--quick",
                "--skip-lock-tables",
                "--routines",
                "--triggers",
                "--events",
                "--hex-blob",
                "--default-character-set=utf8mb4",
            ];
            let mut command = self.client("mariadb-dump", &own);
            command.argv.extend(args.iter().cloned());
            if !named.is_empty() {
                command.argv.push("--databases".to_owned());
                // What follows are names, also if one begins with a dash.
                command.argv.push("--".to_owned());
                command.argv.extend(named.into_iter().map(str::to_owned));
                clients.push(client(command));
            }
        }
        Plan { clients, ..Plan::default() }
    }

    /// Checks that a dump can be loaded, and returns the client that loads it.
    ///
    /// # Errors
    /// It cannot be loaded. Nothing was changed.
    pub async fn load(&self, dumped: Dumped<'_>) -> Result<Command, Failure> {
        let selection = &self.server.work.selection;
        let of_dump: Vec<&str> =
            dumped.manifest.iter().flat_map(|m| m.contents.databases.keys()).map(String::as_str).collect();
        let named = selection.databases();
        if !named.is_empty() && named != of_dump {
            let text = format!(
                "the dump contains {}, and is loaded as a whole; remove the databases from the parameters of the task. Nothing was changed.",
                if of_dump.is_empty() { "databases that are not known".to_owned() } else { of_dump.join(", ") }
            );
            return Err(self.server.refuse(reason::INVALID, &text));
        }
        self.refuse_users(&of_dump).await?;
        // In binary mode, the dump cannot run commands of the client such as `system`.
        let mut command = self.client("mariadb", &["--batch", "--binary-mode", "--default-character-set=utf8mb4"]);
        command.argv.extend(selection.args().iter().cloned());
        Ok(command)
    }

    /// Checks that nobody is connected to these databases; to any database, if there are none.
    async fn refuse_users(&self, databases: &[&str]) -> Result<(), Failure> {
        let list = databases.iter().map(|d| literal(d)).collect::<Vec<_>>().join(", ");
        let which = if databases.is_empty() { format!("db NOT IN ({OWN})") } else { format!("db IN ({list})") };
        let sql = format!(
            "SELECT CONCAT(HEX(user), ' ', HEX(host), ' ', HEX(db)) FROM information_schema.processlist \
             WHERE db IS NOT NULL AND {which} AND id <> CONNECTION_ID();"
        );
        let say = |line: &String| {
            let mut parts = line.split(' ').map(unhex);
            let mut next = || parts.next().unwrap_or_default();
            format!("{} from {} to database {}", next(), next(), next())
        };
        let users: Vec<String> = self.lines(&sql).await?.iter().map(say).collect();
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
    pub async fn found(&self, wanted: &Contents) -> Result<Contents, Failure> {
        let names: Vec<&str> = wanted.databases.keys().map(String::as_str).collect();
        let only: &[&str] = if wanted.roles.is_empty() { &names } else { &[] };
        Ok(self.facts(only, wanted.tables() > 0).await?.contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_of_any_characters_are_kept() {
        assert_eq!(unhex(&literal("a'b\"`日\n")[2..]), "a'b\"`日\n");
        assert_eq!(option("p\"a\\s#s\n;"), "\"p\\\"a\\\\s#s\\n;\"");
    }
}
