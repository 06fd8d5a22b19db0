//! The beginning of the dump of a server: its roles or users.
//!
//! A dump has statements for every role, the role that loads included: it would get the password of the dump, so that
//! nobody could log in with the Secret of the AppBinding any more. These statements are left out while the dump is
//! loaded. Data is never changed: from the first database on, every byte is passed on as it is.

/// Longest line of the beginning; a longer one is passed on as it is.
const LINE: usize = 1 << 20;

/// Passes the beginning of a dump on.
#[derive(Debug)]
pub struct Prologue {
    of: Of,
    /// The role that loads, as names are written in a dump.
    own: Vec<String>,
    /// Headers of databases are changed too.
    headers: Option<Header>,
    pending: Vec<u8>,
    /// The beginning of the pending line was passed on already.
    is_cut: bool,
    is_over: bool,
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Of {
    /// A whole server of PostgreSQL.
    Postgres,
    /// One database of PostgreSQL.
    Database,
    Mysql,
}

/// Where a dump of PostgreSQL is.
#[derive(Clone, Copy, Debug, Default)]
struct Header {
    is_inside: bool,
    /// Rows follow, which are never changed.
    is_data: bool,
}

/// A setting that clients of version 17 write into every dump, and servers before 17 do not know.
const NEW_SETTING: &[u8] = b"SET transaction_timeout = 0;\n";

impl Prologue {
    /// Of a dump by `pg_dumpall`. A role may own objects of a database that is not in the dump: that it cannot be
    /// dropped and exists already is tolerated, see [`is_tolerated`]. From the first database on, psql stops at the
    /// first error. `is_old`: the server is older than version 17.
    pub fn of_postgres(user: &str, is_old: bool) -> Self {
        let own = vec![user.to_owned(), format!("\"{}\"", user.replace('"', "\"\""))];
        Self::new(Of::Postgres, own, is_old)
    }

    /// Of a dump by `pg_dump`, which has no roles.
    pub fn of_database(is_old: bool) -> Self {
        Self { is_over: true, has_begun: true, ..Self::new(Of::Database, vec![], is_old) }
    }

    /// Of a dump by `mariadb-dump`.
    pub fn of_mysql(user: &str) -> Self {
        let own = vec![format!("`{}`@`", user.replace('`', "``")), format!("'{}'@'", user.replace('\'', "''"))];
        Self::new(Of::Mysql, own, false)
    }

    fn new(of: Of, own: Vec<String>, is_old: bool) -> Self {
        let headers = is_old.then(Header::default);
        Self { of, own, headers, pending: vec![], is_cut: false, is_over: false, has_begun: false }
    }

    /// Whether errors of the client are tolerated as [`is_tolerated`] says.
    pub fn tolerates(&self) -> bool {
        self.of == Of::Postgres
    }

    /// Whether the rest of the dump is passed on as it is.
    pub fn is_over(&self) -> bool {
        self.is_over && self.headers.is_none()
    }

    /// What is to be loaded for these bytes of the dump.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        if !self.has_begun && self.of == Of::Postgres {
            out.extend_from_slice(b"\\set ON_ERROR_STOP off\n");
        }
        self.has_begun = true;
        let mut all = std::mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        let mut rest = all.as_slice();
        while !self.is_over() {
            let Some(end) = rest.iter().position(|b| *b == b'\n') else { break };
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            if std::mem::take(&mut self.is_cut) {
                out.extend_from_slice(line);
                continue;
            }
            if !self.is_over && self.begins_databases(line) {
                if self.of == Of::Postgres {
                    out.extend_from_slice(b"\\set ON_ERROR_STOP on\n");
                }
                self.is_over = true;
            }
            let is_left_out = !self.is_over && self.leaves_out(line);
            if !is_left_out && !self.headers.as_mut().is_some_and(|h| h.leaves_out(line)) {
                out.extend_from_slice(line);
            }
        }
        if self.is_over() {
            out.extend_from_slice(rest);
        } else if rest.len() > LINE {
            out.extend_from_slice(rest);
            self.is_cut = true;
        } else {
            self.pending = rest.to_vec();
        }
        out
    }

    /// The rest, at the end of the dump.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    fn begins_databases(&self, line: &[u8]) -> bool {
        let starts: &[&[u8]] = match self.of {
            Of::Postgres | Of::Database => &[b"\\connect "],
            Of::Mysql => &[
                b"-- Current Database:",
                b"-- Table structure",
                b"CREATE DATABASE",
                b"CREATE TABLE",
                b"DROP TABLE",
                b"INSERT INTO",
            ],
        };
        starts.iter().any(|start| line.starts_with(start))
    }

    fn leaves_out(&self, line: &[u8]) -> bool {
        let Ok(line) = std::str::from_utf8(line) else { return false };
        if self.of == Of::Mysql {
            // Only an administrator of the old server may have the right to act as anybody; applications have no use
            // for it.
            return line.starts_with("GRANT PROXY ON ") || self.own.iter().any(|own| line.contains(own));
        }
        let starts = ["DROP ROLE IF EXISTS ", "DROP ROLE ", "CREATE ROLE ", "ALTER ROLE "];
        starts.iter().filter_map(|start| line.strip_prefix(start)).any(|rest| {
            self.own.iter().filter_map(|own| rest.strip_prefix(own.as_str())).any(|rest| rest.starts_with([';', ' ']))
        })
    }
}

impl Header {
    fn leaves_out(&mut self, line: &[u8]) -> bool {
        if self.is_data {
            self.is_data = line != b"\\.\n";
            return false;
        }
        self.is_data = line.starts_with(b"COPY ") && line.ends_with(b" FROM stdin;\n");
        // A dump repeats its header each time that it connects to its database again.
        if line.starts_with(b"-- Dumped by pg_dump version") || line.starts_with(b"\\connect ") {
            self.is_inside = true;
        } else if line.starts_with(b"SELECT pg_catalog.set_config") {
            self.is_inside = false;
        }
        self.is_inside && line == NEW_SETTING
    }
}

/// Errors at the beginning of the dump of a server that do not make a load fail, each with its reason. psql writes the
/// SQLSTATE after the word ERROR.
const TOLERATED: [(&str, &str); 2] = [
    // A role owns objects of a database that is not in the dump, so it is not dropped.
    ("2BP01", "role "),
    // The same role then exists already when it is to be created. Its attributes are set by the next statement.
    ("42710", "role "),
];

/// Whether an error message of psql at the beginning of a dump is tolerated. `None` if it is not an error message.
pub fn is_tolerated(line: &str) -> Option<bool> {
    let (_, error) = line.split_once("ERROR:  ")?;
    Some(TOLERATED.iter().any(|(state, what)| {
        error.strip_prefix(state).is_some_and(|rest| rest.starts_with(": ") && rest.contains(what))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUMP: &str = "--\n-- dump\n\nDROP DATABASE IF EXISTS shop;\nDROP ROLE IF EXISTS app;\nDROP ROLE IF EXISTS postgres;\n\
        CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'x';\nCREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER PASSWORD 'y';\n\
        CREATE ROLE postgres2;\n\\connect template1\n\nCREATE ROLE postgres;\nCOPY t FROM stdin;\nDROP ROLE postgres;\n\\.\n";

    fn passed(user: &str, dump: &[u8], cut: usize) -> String {
        let mut globals = Prologue::of_postgres(user, false);
        let mut out: Vec<u8> = dump.chunks(cut).flat_map(|part| globals.pass(part)).collect();
        out.extend(globals.rest());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_role_that_loads_keeps_its_own_definition() {
        let out = passed("postgres", DUMP.as_bytes(), usize::MAX);
        let (globals, databases) = out.split_once("\\connect template1\n").unwrap();
        assert!(globals.starts_with("\\set ON_ERROR_STOP off\n") && globals.ends_with("\\set ON_ERROR_STOP on\n"));
        assert!(!globals.contains("ROLE postgres;") && !globals.contains("ROLE postgres ") && !globals.contains("'y'"));
        assert!(globals.contains("CREATE ROLE app;") && globals.contains("'x'") && globals.contains("ROLE postgres2;"));
        assert_eq!(databases, DUMP.split_once("\\connect template1\n").unwrap().1, "data is never changed");
    }

    #[test]
    fn a_user_of_mariadb_that_loads_keeps_its_password() {
        let users = "-- MariaDB dump\nCREATE USER IF NOT EXISTS `app`@`%`;\nCREATE USER IF NOT EXISTS `admin`@`%`;\n\
            GRANT PROXY ON ``@`%` TO `root`@`localhost`;\nGRANT ALL PRIVILEGES ON *.* TO `admin`@`%` IDENTIFIED BY PASSWORD '*A';\n\
            GRANT ALL ON `shop`.* TO `app`@`%`;\n/*M!100005 SET DEFAULT ROLE NONE FOR 'admin'@'%' */;\n";
        let data = "-- Current Database: `shop`\nINSERT INTO t VALUES\n(\"GRANT PROXY ON `admin`@`\");\n";
        let mut prologue = Prologue::of_mysql("admin");
        let out = String::from_utf8(prologue.pass(format!("{users}{data}").as_bytes())).unwrap();
        let expected = "-- MariaDB dump\nCREATE USER IF NOT EXISTS `app`@`%`;\nGRANT ALL ON `shop`.* TO `app`@`%`;\n";
        assert_eq!((out, prologue.is_over()), (format!("{expected}{data}"), true));
    }

    #[test]
    fn a_setting_that_an_old_server_does_not_know_is_left_out_of_headers_only() {
        let header = "-- Dumped by pg_dump version 17.6\n\nSET transaction_timeout = 0;\nSET x = 1;\nSELECT pg_catalog.set_config('', '', false);\n";
        let data = "SET transaction_timeout = 0;\nCOPY t FROM stdin;\n-- Dumped by pg_dump version\nSET transaction_timeout = 0;\n\\.\n";
        let again = header.replace("-- Dumped by pg_dump version 17.6", "\\connect shop\n\\restrict abc");
        let dump = format!("{header}{data}{header}{again}");
        let without = |header: &str| header.replace("SET transaction_timeout = 0;\n", "");
        let loaded = format!("{0}{data}{0}{1}", without(header), without(&again));
        for cut in [1, 7, usize::MAX] {
            let mut prologue = Prologue::of_database(true);
            let mut out: Vec<u8> = dump.as_bytes().chunks(cut).flat_map(|part| prologue.pass(part)).collect();
            out.extend(prologue.rest());
            assert_eq!(String::from_utf8(out).unwrap(), loaded);
        }
        let long = [b"x".repeat(LINE + 10), b"\\.\n".to_vec()].concat();
        let mut prologue = Prologue::of_database(true);
        let mut out: Vec<u8> = long.chunks(1000).flat_map(|part| prologue.pass(part)).collect();
        out.extend(prologue.rest());
        assert_eq!(out, long);
    }

    #[test]
    fn only_roles_that_stay_are_tolerated() {
        let line = |text: &str| format!("psql:<stdin>:12: ERROR:  {text}");
        for (text, expected) in [
            (line("42710: role \"app\" already exists"), Some(true)),
            (line("2BP01: role \"app\" cannot be dropped because some objects depend on it"), Some(true)),
            (line("55006: database \"shop\" is being accessed by other users"), Some(false)),
            (line("42710: tablespace \"fast\" already exists"), Some(false)),
            (line("42501: permission denied to create role"), Some(false)),
            ("psql:<stdin>:3: NOTICE:  role \"app\" does not exist, skipping".to_owned(), None),
        ] {
            assert_eq!(is_tolerated(&text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_passed_does_not_depend_on_the_chunks(cut in 1usize..200, user in "(postgres|app|a b)") {
            prop_assert_eq!(passed(&user, DUMP.as_bytes(), cut), passed(&user, DUMP.as_bytes(), usize::MAX));
        }

        #[test]
        fn any_bytes_without_a_database_are_kept(bytes in prop::collection::vec(any::<u8>(), 0..2000), cut in 1usize..97) {
            prop_assume!(!bytes.starts_with(b"\\connect ") && !bytes.windows(10).any(|w| w == b"\n\\connect "));
            let mut globals = Prologue::of_postgres("nobody in these bytes", false);
            let mut out: Vec<u8> = bytes.chunks(cut).flat_map(|part| globals.pass(part)).collect();
            out.extend(globals.rest());
            let out = out.strip_prefix(b"\\set ON_ERROR_STOP off\n".as_slice()).unwrap_or(&out);
            prop_assert_eq!(out, &bytes[..]);
        }
    }
}
