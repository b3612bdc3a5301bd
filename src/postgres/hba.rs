//! Renders `pg_hba.conf` and `pg_ident.conf` (pure).

use super::settings::Settings;

/// Begins like the one of `postgresql.conf`, by which pgherd knows its own files again.
const HEADER: &str =
    "# Written by pgherd: changes made here are lost. Use postgresql.pg_hba in the configuration.\n";

/// A name as a field of a line. A line break would end it within the name; PostgreSQL has no way to write one there.
fn field(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The content of `pg_hba.conf`: the configuration's lines, or safe default lines. Where pgherd itself comes through
/// the local socket and no line of the configuration is about it, one for the superuser is put before them.
pub(super) fn render(settings: &Settings) -> String {
    let mut lines =
        if settings.pg_hba.is_empty() { default_lines(settings) } else { settings.pg_hba.clone() };
    let needs_local = settings.use_unix_socket || settings.superuser.password.is_none();
    if needs_local && !lines.iter().any(|line| line.trim_start().starts_with("local")) {
        let superuser = field(&settings.superuser.username);
        lines.insert(0, format!("local all {superuser} {}", local_method(settings)));
    }
    lines.iter().fold(HEADER.to_owned(), |text, line| text + line + "\n")
}

/// The content of `pg_hba.conf` while the cluster is being initialised: the superuser from this machine only, so that
/// no client writes into what may be thrown away.
pub(super) fn render_for_bootstrap(settings: &Settings) -> String {
    let superuser = field(&settings.superuser.username);
    let method = method_of(settings);
    let mut text = format!("{HEADER}local all {superuser} {}\n", local_method(settings));
    for address in ["127.0.0.1/32", "::1/128", "samehost"] {
        text.push_str(&format!("host all {superuser} {address} {method}\n"));
    }
    if settings.superuser.password.is_none() {
        // How the superuser gets in without a password is said by the configuration's own lines, if at all.
        settings.pg_hba.iter().for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
    }
    text
}

/// The content of `pg_ident.conf`; none: the file is left alone.
pub(super) fn render_ident(settings: &Settings) -> Option<String> {
    (!settings.pg_ident.is_empty())
        .then(|| settings.pg_ident.iter().fold(HEADER.to_owned(), |text, line| text + line + "\n"))
}

fn method_of(settings: &Settings) -> &'static str {
    if settings.superuser.password.is_some() { password_method(settings) } else { "reject" }
}

/// `initdb --auth=md5` stores passwords in a form that nothing else understands; where it is not asked for, it is not
/// offered.
fn password_method(settings: &Settings) -> &'static str {
    let is_md5 = |(name, value): &(String, Option<String>)| {
        matches!(name.as_str(), "auth" | "auth-host" | "auth-local") && value.as_deref() == Some("md5")
    };
    if settings.initdb.iter().any(is_md5) { "md5" } else { "scram-sha-256" }
}

/// Without a password the superuser is whoever the operating system says it is.
fn local_method(settings: &Settings) -> &'static str {
    if settings.superuser.password.is_some() { password_method(settings) } else { "peer" }
}

/// Passwords everywhere; without one only the operating system's word on the local socket.
fn default_lines(settings: &Settings) -> Vec<String> {
    let replication = field(&settings.replication.username);
    let method = password_method(settings);
    let mut lines = vec![
        format!("local all {} {}", field(&settings.superuser.username), local_method(settings)),
        format!("local all all {method}"),
        format!("local replication {replication} {method}"),
        format!("host replication {replication} all {method}"),
    ];
    if settings.superuser.password.is_none() {
        lines.push(format!("host all {} all reject", field(&settings.superuser.username)));
    }
    lines.push(format!("host all all all {method}"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Credentials;

    fn settings() -> Settings {
        let mut settings = Settings::new("s", "m", std::path::Path::new("/d"), 1);
        settings.superuser = Credentials::new("postgres", Some("secret"));
        settings
    }

    #[test]
    fn the_configuration_s_lines_are_taken_as_they_are() {
        let mut settings = settings();
        settings.pg_hba = vec!["local all all trust".to_owned()];
        assert_eq!(render(&settings), format!("{HEADER}local all all trust\n"));
        assert!(!render_for_bootstrap(&settings).contains("trust"));
        settings.pg_hba = vec!["host all all samenet md5".to_owned()];
        assert_eq!(render(&settings), format!("{HEADER}host all all samenet md5\n"));
        settings.superuser.password = None;
        let own = "local all \"postgres\" peer\n";
        assert_eq!(render(&settings), format!("{HEADER}{own}host all all samenet md5\n"));
    }

    #[test]
    fn the_default_lets_nobody_in_without_a_password() {
        let golden = "local all \"postgres\" scram-sha-256\n\
                      local all all scram-sha-256\n\
                      local replication \"replicator\" scram-sha-256\n\
                      host replication \"replicator\" all scram-sha-256\n\
                      host all all all scram-sha-256\n";
        assert_eq!(render(&settings()), format!("{HEADER}{golden}"));
        let mut without = settings();
        without.superuser.password = None;
        assert!(render(&without).contains("local all \"postgres\" peer\n"));
        assert!(render(&without).contains("host all \"postgres\" all reject\n"));
        assert!(!render(&without).contains("trust"));
        let mut old = settings();
        old.initdb = vec![("auth-host".to_owned(), Some("md5".to_owned()))];
        for text in [render(&old), render_for_bootstrap(&old)] {
            assert!(text.contains(" md5\n") && !text.contains("scram"), "{text}");
        }
    }
}
