//! Promotion.

use std::time::Duration;

use pgherd_raft::clock;
use tokio::time::sleep;

use super::Postgres;
use super::error::PgError;

/// How often a promotion is asked for. A request which arrives while the walreceiver is dying can otherwise sleep a
/// whole `wal_retrieve_retry_interval`.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The checkpoint after a promotion may take this long.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);

impl Postgres {
    /// Asks the server to leave recovery until it has. The session is known to be that of the local postmaster, so no
    /// other server can be promoted by mistake.
    pub(super) async fn promote(&self) -> Result<(), PgError> {
        // What will be written here is nowhere else: from now on it is more than a copy. Before the first request, since
        // this can be interrupted at any point after it.
        self.value_copy().await?;
        let began = clock::now();
        let mut promoted = false;
        let asking = async {
            loop {
                match self.ask_for_promotion().await {
                    Ok(true) => return,
                    Ok(false) => promoted = true,
                    Err(error) => tracing::debug!("the promotion is asked for again: {}", error.in_full()),
                }
                sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = asking => {}
            ended = self.postmaster.stopped() => {
                let how = ended.map_err(PgError::postmaster("PostgreSQL ended before it was promoted"))?;
                return Err(PgError::Refused(format!("PostgreSQL ended before it was promoted ({how})")));
            }
        }
        if promoted {
            tracing::info!(
                "PostgreSQL left recovery {} ms after the first request",
                clock::now().since(began).as_millis()
            );
            self.checkpoint_in_background();
        }
        self.forget_control();
        Ok(())
    }

    /// True when the server is not in recovery.
    async fn ask_for_promotion(&self) -> Result<bool, PgError> {
        let session = self.session().await?;
        if !session.is_in_recovery().await? {
            return Ok(true);
        }
        self.postmaster.may_write().map_err(PgError::postmaster("the promotion is not asked for"))?;
        session.promote().await?;
        Ok(false)
    }

    /// Until the first checkpoint the control file names the old timeline, and a former primary cannot be rewound to
    /// this server.
    fn checkpoint_in_background(&self) {
        let this = self.clone();
        self.in_background(async move {
            let checkpoint =
                async { Ok::<_, PgError>(this.connect().await?.checkpoint(CHECKPOINT_LIMIT).await?) };
            if let Err(error) = checkpoint.await {
                tracing::warn!("the checkpoint after the promotion was not made: {}", error.in_full());
            }
        });
    }
}
