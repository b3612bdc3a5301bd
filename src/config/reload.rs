//! Asking for the configuration to be read again: by SIGHUP, by REST, by the operator's tool.
//!
//! Promises: requests never wait for each other; those which come while one is being served are served together by the
//! next reading. Must never hold a configuration: whoever reads it publishes it.

use tokio::sync::{mpsc, oneshot};

/// So many may wait for an answer; more are refused, since one reading would serve them all.
const MAX_WAITING: usize = 64;

type Answer = oneshot::Sender<Result<(), String>>;

/// Where requests are put. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReloadRequests {
    waiting: mpsc::Sender<Answer>,
}

/// Where they are taken out; there is one.
#[derive(Debug)]
pub struct ReloadQueue {
    waiting: mpsc::Receiver<Answer>,
}

/// Requests which one reading serves.
#[derive(Debug)]
pub struct ReloadRound(Vec<Answer>);

/// Both ends.
pub fn reload_channel() -> (ReloadRequests, ReloadQueue) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    (ReloadRequests { waiting: sender }, ReloadQueue { waiting: receiver })
}

impl ReloadRequests {
    /// Has the configuration read again and waits until that is done.
    ///
    /// # Errors
    /// All mistakes of the new configuration in one text: then nothing has changed.
    pub async fn reload(&self) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let ends = || "the daemon is ending".to_owned();
        self.waiting.send(answer).await.map_err(|_| ends())?;
        answered.await.unwrap_or_else(|_| Err(ends()))
    }

    /// Has the configuration read again soon; what comes of it is in the log.
    pub fn request(&self) {
        let (answer, _) = oneshot::channel();
        // A full queue is about to be served.
        self.waiting.try_send(answer).ok();
    }
}

impl ReloadQueue {
    /// The next requests; none: nobody can ask any more.
    pub async fn next(&mut self) -> Option<ReloadRound> {
        let mut round = vec![self.waiting.recv().await?];
        while let Ok(answer) = self.waiting.try_recv() {
            round.push(answer);
        }
        Some(ReloadRound(round))
    }
}

impl ReloadRound {
    /// Tells all who wait.
    pub fn answer(self, result: &Result<(), String>) {
        for answer in self.0 {
            // Whoever asked may have gone away.
            answer.send(result.clone()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_of_one_moment_are_served_together() {
        let (requests, mut queue) = reload_channel();
        requests.request();
        let asked = (requests.reload(), requests.reload());
        let serve = async {
            let round = queue.next().await.expect("requests");
            let count = round.0.len();
            round.answer(&Err("no".to_owned()));
            count
        };
        let (first, second, count) = tokio::join!(asked.0, asked.1, serve);
        assert_eq!((first, second, count), (Err("no".to_owned()), Err("no".to_owned()), 3));
        drop(queue);
        assert!(requests.reload().await.is_err());
    }
}
