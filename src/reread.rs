//! Reads the configuration again when it is asked to: by SIGHUP, by REST, by the operator's tool.
//!
//! Promises: a configuration with mistakes changes nothing, and all its mistakes are told at once; what cannot take
//! effect before the daemon is started again is named. Whoever needs the configuration subscribes to it.

use std::sync::Arc;

use pgherd_raft::service::{Service, notify};
use pgherd_raft::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::{Config, ReloadQueue, ReloadRequests, Source, reload_channel};

/// The one who reads and publishes.
#[derive(Debug)]
pub(crate) struct Reread {
    source: Arc<Source>,
    configs: watch::Sender<Arc<Config>>,
    requests: ReloadQueue,
    hangups: Option<Signal>,
}

impl Reread {
    /// The one who reads, and how it is asked to. From here on SIGHUP does not end the process.
    pub(crate) fn new(source: Source, configs: watch::Sender<Arc<Config>>) -> (Self, ReloadRequests) {
        let (asks, requests) = reload_channel();
        let hangups = signal(SignalKind::hangup()).ok();
        if hangups.is_none() {
            warn!("SIGHUP cannot be received: have the configuration read again over the REST API");
        }
        (Self { source: Arc::new(source), configs, requests, hangups }, asks)
    }

    /// Serves requests until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let hangup = async {
                match &mut self.hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let round = tokio::select! {
                round = self.requests.next() => match round {
                    Some(round) => Some(round),
                    // The daemon ends.
                    None => return,
                },
                _ = hangup => {
                    info!("received SIGHUP: reading the configuration again");
                    None
                }
            };
            notify(Service::Reloading);
            let result = self.read().await;
            notify(Service::Ready);
            if let Some(round) = round {
                round.answer(&result);
            }
        }
    }

    async fn read(&self) -> Result<(), String> {
        let source = Arc::clone(&self.source);
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let (config, warnings) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(errors)) => {
                error!("the configuration stays as it is: {errors}");
                return Err(errors.to_string());
            }
            Err(broken) => return Err(format!("the configuration could not be read: {broken}")),
        };
        for warning in &warnings {
            warn!("{warning}");
        }
        let running = Arc::clone(&self.configs.borrow());
        let (config, waiting) = config.while_running(&running);
        for key in waiting {
            warn!("{key} has changed: it takes effect when the daemon is started again");
        }
        if config.log != running.log
            && let Err(failed) = telemetry::change(&config.log)
        {
            error!("the log goes on as before: {failed}");
        }
        if config == *running {
            info!("No local configuration items changed.");
        } else {
            info!("the configuration was read again");
        }
        self.configs.send_replace(Arc::new(config));
        Ok(())
    }
}
