//! Promotion.

use std::time::Duration;

use pgherd_raft::clock;
use pgherd_raft::lease::BootTime;
use pgherd_raft::model::TimelineId;
use tokio::time::sleep;

use super::Postgres;
use super::error::PgError;

/// How often a promotion is asked for. A request which arrives while the walreceiver is dying can otherwise sleep a
/// whole `wal_retrieve_retry_interval`.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often it is looked whether the server has left recovery: clients wait for it.
const LOOK: Duration = Duration::from_millis(10);
/// The checkpoint after a promotion may take this long.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(3600);

impl Postgres {
    /// Asks the server to leave recovery until it has. The session is known to be that of the local postmaster, so no
    /// other server can be promoted by mistake.
    pub(super) async fn promote(&self, timeline: TimelineId) -> Result<(), PgError> {
        // What will be written here is nowhere else: from now on it is more than a copy. Before the first request, since
        // this can be interrupted at any point after it.
        self.value_copy().await?;
        let began = clock::now();
        let mut asked_at = None;
        let asking = async {
            loop {
                match self.ask_for_promotion(timeline, &mut asked_at).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    // Nothing was asked for, and nothing makes another attempt succeed.
                    Err(error @ PgError::Timeline { .. }) => return Err(error),
                    Err(error) => tracing::debug!("the promotion is asked for again: {}", error.in_full()),
                }
                sleep(LOOK).await;
            }
        };
        tokio::select! {
            asked = asking => asked?,
            ended = self.postmaster.stopped() => {
                let how = ended.map_err(PgError::postmaster("PostgreSQL ended before it was promoted"))?;
                return Err(PgError::Refused(format!("PostgreSQL ended before it was promoted ({how})")));
            }
        }
        if asked_at.is_some() {
            tracing::info!("PostgreSQL left recovery after {} ms", clock::now().since(began).as_millis());
            self.verify_timeline(timeline).await;
            self.checkpoint_in_background();
        }
        self.forget_control();
        Ok(())
    }

    /// True when the server is not in recovery. `asked_at`: when it was asked to leave it.
    async fn ask_for_promotion(
        &self,
        timeline: TimelineId,
        asked_at: &mut Option<BootTime>,
    ) -> Result<bool, PgError> {
        let session = self.session().await?;
        if !session.is_in_recovery().await? {
            return Ok(true);
        }
        if asked_at.is_some_and(|asked| clock::now().since(asked) < ASK_AGAIN) {
            return Ok(false);
        }
        self.postmaster.may_write().map_err(PgError::postmaster("the promotion is not asked for"))?;
        if asked_at.is_none() {
            let from = session.checkpoint_timeline().await?;
            self.make_way_for(from, timeline).await?;
        }
        *asked_at = Some(clock::now());
        session.promote().await?;
        Ok(false)
    }

    /// PostgreSQL chooses the number; what it chose is looked at, and the decisions see it with the next observation.
    async fn verify_timeline(&self, reserved: TimelineId) {
        let look = async { Ok::<_, PgError>(self.session().await?.written_timeline().await?) };
        match look.await {
            Ok(Some(made)) if made == reserved => {
                tracing::info!("PostgreSQL made timeline {made}, as reserved");
            }
            Ok(Some(made)) => tracing::warn!(
                "PostgreSQL made timeline {made}, while {reserved} was reserved: another promotion may have made {made} \
                 as well. Are there history files in the archive which restore_command reads?"
            ),
            Ok(None) => tracing::warn!("PostgreSQL does not say which timeline it made"),
            Err(error) => {
                tracing::warn!("the timeline that was made is not known: {}", error.in_full());
            }
        }
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
