//! Writes what a server reads at its start and on reload: configuration, authentication, signals, password file.

use pgherd_raft::model::Epoch;

use super::conf::{self, Role, TOOL_SERVICE};
use super::error::PgError;
use super::files::{self, blocking};
use super::layout::{Layout, Marker};
use super::postmaster::PostmasterSignal;
use super::quote::pgpass_field;
use super::settings::{Credentials, Settings};
use super::{Postgres, foreign, hba};
use crate::ha::{SyncNames, Upstream};

/// A password file is not let grow beyond this.
const MOST_PGPASS_LINES: usize = 200;

/// Which `pg_hba.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// As configured.
    Usual,
    /// The superuser from this machine only.
    Bootstrap,
}

impl Postgres {
    /// Writes all files for a server which is not running, its role included.
    pub(super) async fn write_all(&self, role: Role, access: Access) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        blocking(move || {
            write_conf(&settings, &layout, &role, None)?;
            write_access(&settings, &layout, access)?;
            rewrite_auto(&layout)?;
            files::remove(&layout.in_data("recovery.signal"))?;
            match role {
                Role::Primary => files::remove(&layout.in_data("standby.signal")).map(|_| ()),
                Role::Standby(_) => files::write(&layout.in_data("standby.signal"), "").map(|_| ()),
            }
        })
        .await
    }

    /// Writes whom to follow and makes a running server read it. Done when it is written and the server was told.
    pub(super) async fn follow(&self, upstream: Option<Upstream>) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        let role = Role::Standby(upstream);
        self.drop_placeholders().await?;
        blocking(move || write_conf(&settings, &layout, &role, None)).await?;
        self.reload().await
    }

    /// Records durably that nobody is followed up to this epoch, then sees to it.
    pub(super) async fn fence(&self, epoch: Epoch) -> Result<(), PgError> {
        let path = self.layout().fence_file();
        blocking(move || {
            let present = parse_fence(files::read(&path)?.as_deref()).unwrap_or(Epoch(0));
            if present < epoch { files::write(&path, &format!("{epoch}\n")).map(|_| ()) } else { Ok(()) }
        })
        .await?;
        self.follow(None).await
    }

    /// Writes `synchronous_standby_names` and makes a running server read it.
    pub(super) async fn set_sync(&self, names: SyncNames) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        blocking(move || {
            let conf = files::read(&layout.conf_file())?.unwrap_or_default();
            write_conf(&settings, &layout, &role_of(&layout, &conf), Some(names))?;
            rewrite_auto(&layout)
        })
        .await?;
        self.reload().await
    }

    /// Writes the files again as they should be, for the role which the server has.
    pub(super) async fn rewrite(&self) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        let is_there = blocking(move || {
            if !layout.in_data("PG_VERSION").is_file() {
                return Ok(false);
            }
            let conf = files::read(&layout.conf_file())?.unwrap_or_default();
            write_conf(&settings, &layout, &role_of(&layout, &conf), None)?;
            write_access(&settings, &layout, Access::Usual)?;
            Ok(true)
        })
        .await?;
        if is_there { self.reload().await } else { Ok(()) }
    }

    /// Keeps a scheduled restart over a restart of the daemon; none: there is none.
    ///
    /// # Errors
    /// The file beside the data directory cannot be written or removed.
    pub async fn keep_restart(&self, text: Option<String>) -> Result<(), PgError> {
        let path = self.layout().restart_file();
        blocking(move || match text {
            Some(text) => files::write(&path, &text).map(|_| ()),
            None => files::remove(&path).map(|_| ()),
        })
        .await
    }

    /// What was kept.
    pub async fn kept_restart(&self) -> Option<String> {
        let path = self.layout().restart_file();
        blocking(move || files::read(&path)).await.ok().flatten()
    }

    /// A copy which becomes writable is no longer one that may be thrown away.
    pub(super) async fn value_copy(&self) -> Result<(), PgError> {
        let layout = self.layout();
        blocking(move || match layout.marker()? {
            Some(Marker::Copied) => layout.unmark(),
            Some(Marker::Filling(_) | Marker::PuttingAside(_) | Marker::Rewinding) | None => Ok(()),
        })
        .await
    }

    /// Writes `pg_hba.conf` and `pg_ident.conf` alone and makes a running server read them.
    pub(super) async fn set_access(&self, access: Access) -> Result<(), PgError> {
        let (settings, layout) = (self.settings(), self.layout());
        blocking(move || write_access(&settings, &layout, access)).await?;
        self.reload().await
    }

    async fn reload(&self) -> Result<(), PgError> {
        *self.refusal() = None;
        if !self.is_running() {
            return Ok(());
        }
        self.look_at_pending_soon();
        let signal = self.postmaster.signal(PostmasterSignal::Reload);
        signal.await.map_err(PgError::postmaster("cannot reload PostgreSQL"))
    }
}

/// What the server is now, as its files say.
fn role_of(layout: &Layout, conf: &str) -> Role {
    if layout.in_data("standby.signal").exists() {
        Role::Standby(conf::parse_upstream(conf))
    } else {
        Role::Primary
    }
}

fn agreed_sync(layout: &Layout) -> Result<SyncNames, PgError> {
    let conf = files::read(&layout.conf_file())?.unwrap_or_default();
    Ok(conf::parse_sync(&conf))
}

/// Takes out of `postgresql.auto.conf` what would win over the file which pgherd writes.
fn rewrite_auto(layout: &Layout) -> Result<(), PgError> {
    let auto = layout.in_data("postgresql.auto.conf");
    let Some(present) = files::read(&auto)? else { return Ok(()) };
    let sync = agreed_sync(layout)?;
    files::write(&auto, &conf::without_owned_parameters(&present, &sync)).map(|_| ())
}

/// A file that cannot be read is no reason to follow anybody.
pub(super) fn parse_fence(text: Option<&str>) -> Result<Epoch, PgError> {
    let Some(text) = text else { return Ok(Epoch(0)) };
    text.trim().parse().map(Epoch).map_err(|_| {
        PgError::Refused(format!("the record of the fence does not name an epoch, but {:?}", text.trim()))
    })
}

/// `sync`: other synchronous standbys than the file names already.
fn write_conf(
    settings: &Settings,
    layout: &Layout,
    role: &Role,
    sync: Option<SyncNames>,
) -> Result<(), PgError> {
    let sync = match sync {
        Some(sync) => sync,
        None => agreed_sync(layout)?,
    };
    let (path, base) = (layout.conf_file(), layout.base_file());
    if !base.exists() {
        let present = files::read(&path)?;
        let is_foreign = present.as_deref().is_some_and(|text| !text.starts_with(conf::HEADER));
        if is_foreign {
            files::rename(&path, &base)?;
        } else {
            files::write(&base, "")?;
        }
    }
    if let Role::Standby(Some(upstream)) = role {
        let line = pgpass_line(&settings.replication, &upstream.addr.host, Some(upstream.addr.port));
        if let Some(line) = line {
            let present = files::read(&settings.pgpass)?.unwrap_or_default();
            files::write(&settings.pgpass, &merge_pgpass(&present, &line))?;
        }
    }
    if let Some(document) = &settings.kept_document {
        files::write(&layout.document_file(), document)?;
    }
    let (_, socket_fallback) = Postgres::sockets(settings);
    files::write(&path, &conf::render(settings, role, &sync, socket_fallback)).map(|_| ())
}

fn write_access(settings: &Settings, layout: &Layout, access: Access) -> Result<(), PgError> {
    let (hba, ident) = (layout.in_config("pg_hba.conf"), layout.in_config("pg_ident.conf"));
    // A file of the operator's own is none of ours.
    let is_elsewhere = |name: &str| settings.parameters.contains_key(name);
    let ident_lines = hba::render_ident(settings).filter(|_| !is_elsewhere("ident_file"));
    if access == Access::Bootstrap {
        // What initdb wrote is nobody's work.
        files::write(&hba, &hba::render_for_bootstrap(settings))?;
        ident_lines.as_ref().map(|lines| files::write(&ident, lines)).transpose()?;
    } else if !is_elsewhere("hba_file") && (!settings.pg_hba.is_empty() || !foreign::is_foreign(&hba)?) {
        foreign::replace(&hba, &hba::render(settings))?;
    }
    match ident_lines {
        Some(lines) => foreign::replace(&ident, &lines),
        None if ident.exists() => Ok(()),
        None => files::write(&ident, "").map(|_| ()),
    }
}

/// A line of a password file; none without a password.
pub(super) fn pgpass_line(credentials: &Credentials, host: &str, port: Option<u16>) -> Option<String> {
    let password = credentials.password.as_ref()?;
    let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
    let (host, user) = (pgpass_field(host), pgpass_field(&credentials.username));
    Some(format!("{host}:{port}:*:{user}:{}\n", pgpass_field(password.expose())))
}

/// A password file with this line instead of the one for the same server and user. Other lines stay: several members on
/// one machine may share the file.
fn merge_pgpass(present: &str, line: &str) -> String {
    let key = |line: &str| {
        let mut is_escaped = false;
        let is_colon = |c: char| {
            let is_colon = c == ':' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_colon
        };
        line.match_indices(is_colon).nth(3).and_then(|(end, _)| line.get(..end)).map(str::to_owned)
    };
    let own = key(line);
    let others = present.lines().filter(|other| key(other) != own && !other.trim().is_empty());
    let surplus = others.clone().count().saturating_sub(MOST_PGPASS_LINES);
    others.skip(surplus).fold(String::new(), |text, other| text + other + "\n") + line
}

/// A password file for the run of one program, removed afterwards.
#[derive(Debug)]
pub(super) struct ToolPassfile {
    path: std::path::PathBuf,
    service: std::path::PathBuf,
}

impl ToolPassfile {
    /// Writes it; the host is not compared, as the file is for one connection string only.
    pub(super) fn new(layout: &Layout, credentials: &Credentials) -> Result<Self, PgError> {
        let path = layout.tool_pgpass();
        files::write(&path, &pgpass_line(credentials, "*", None).unwrap_or_default())?;
        let service = layout.tool_service();
        if let Some(word) = &credentials.sslpassword {
            files::write(&service, &format!("[{TOOL_SERVICE}]\nsslpassword={}\n", word.expose()))?;
        }
        Ok(Self { path, service })
    }

    /// For `PGSERVICEFILE`.
    pub(super) fn service(&self) -> &std::path::Path {
        &self.service
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

impl Drop for ToolPassfile {
    fn drop(&mut self) {
        // It is private and is overwritten by the next run if it stays.
        files::remove(&self.path).ok();
        files::remove(&self.service).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_on_one_machine_share_a_password_file() {
        let credentials = |password: &str| Credentials::new("re:pl", Some(password));
        let line =
            |port, password: &str| pgpass_line(&credentials(password), "::1", Some(port)).expect("line");
        let mut file = merge_pgpass("other:1:*:x:y\n\n", &line(5432, "a:b"));
        file = merge_pgpass(&file, &line(5433, "c"));
        file = merge_pgpass(&file, &line(5432, "d\\"));
        let golden = "other:1:*:x:y\n\\:\\:1:5433:*:re\\:pl:c\n\\:\\:1:5432:*:re\\:pl:d\\\\\n";
        assert_eq!(file, golden);
        let many = (0..1000).fold(String::new(), |file, port| merge_pgpass(&file, &line(port, "x")));
        assert_eq!(many.lines().count(), MOST_PGPASS_LINES + 1);
    }
}
