//! What of the REST API follows a configuration that is read again: certificates, whether there is encryption at all, who is
//! let in, headers, the address, and how other members' APIs are called.

use std::sync::Arc;

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::ApiSettings;
use super::auth::authorization;
use super::listening::{Listening, Mover};
use crate::config::Config;
use crate::http_client::{HttpClient, member_settings};
use crate::tls::{ServerTls, TlsError};

/// What follows the configuration.
#[derive(Debug)]
pub struct Followed {
    /// The certificates of the server.
    pub tls: ServerTls,
    /// What answers depend on.
    pub settings: watch::Sender<Arc<ApiSettings>>,
    /// The running server; none: it stays where it is.
    pub mover: Option<Mover>,
    /// How other members are called.
    pub members: watch::Sender<HttpClient>,
}

/// The client for other members' APIs, as `ctl` says.
///
/// # Errors
/// A certificate cannot be read or used.
pub fn to_members(config: &Config) -> Result<HttpClient, TlsError> {
    let basic = config.ctl.authentication.as_ref();
    let authorization = basic.and_then(|basic| authorization(&basic.username, basic.password.expose()));
    let client = HttpClient::new(member_settings(&config.ctl, &config.restapi), authorization);
    client.load()?;
    Ok(client)
}

/// Follows the configuration for as long as there is one. Certificates are read again each time: they may be others although
/// the configuration is the same.
pub async fn follow(mut configs: watch::Receiver<Arc<Config>>, mut followed: Followed) {
    while configs.changed().await.is_ok() {
        let config = Arc::clone(&configs.borrow_and_update());
        follow_once(&config, &mut followed).await;
    }
}

async fn follow_once(config: &Arc<Config>, followed: &mut Followed) {
    let was_on = followed.tls.is_on();
    let (tls, files) = (followed.tls.clone(), Arc::clone(config));
    match tokio::task::spawn_blocking(move || (tls.reload(&files.restapi.tls), to_members(&files))).await {
        Ok((server, members)) => {
            if let Err(error) = server {
                warn!("the certificate of the REST API stays as it was: {error}");
            }
            match members {
                Ok(client) => drop(followed.members.send_replace(client)),
                Err(error) => warn!("other members are called as before: {error}"),
            }
        }
        Err(error) => warn!("the certificates could not be read: {error}"),
    }
    let is_on = followed.tls.is_on();
    followed.settings.send_replace(Arc::new(ApiSettings::of(&config.restapi, is_on).await));
    let Some(mover) = &mut followed.mover else { return };
    if is_on != was_on {
        info!("the REST API speaks {} from now on", if is_on { "HTTPS" } else { "HTTP" });
        mover.end_connections().await;
    }
    match mover.listen(&Listening::of(&config.restapi)).await {
        Ok(true) => info!("the REST API listens on {} from now on", config.restapi.listen),
        Ok(false) => {}
        Err(error) => error!("the REST API stays where it was: {error}"),
    }
}
