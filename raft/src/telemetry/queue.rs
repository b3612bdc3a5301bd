//! The way of a record from whoever logs to the sink: a bounded queue, and a thread that writes.
//!
//! Promises that logging waits for nothing but a lock that is held for moments: a full disk, a hanging standard error or
//! a reader that stopped cost records, which are counted, and delay nobody.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::format;
use super::level::LogLevel;
use super::record::Record;
use super::settings::LogSettings;
use super::sink::Sink;

/// What `logger_queue_size` and `logger_records_lost` of the status document say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Records that wait to be written.
    pub queue_size: usize,
    /// Records that were not written, since the start.
    pub records_lost: u64,
}

/// The queue; clones share it.
#[derive(Clone, Default)]
pub(super) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be done.
    news: Condvar,
    /// Nothing is left to be written.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    records: VecDeque<Record>,
    settings: Arc<LogSettings>,
    /// In its place lines are written from now on.
    next_sink: Option<Box<dyn Sink>>,
    lost: u64,
    /// How many of them the log has told.
    told: u64,
    is_writing: bool,
    has_ended: bool,
    last_heartbeat: Option<String>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.records.is_empty() && !self.is_writing
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that writes to this sink.
    pub(super) fn start(settings: LogSettings, sink: Box<dyn Sink>) -> io::Result<Self> {
        let queue = Self::default();
        queue.state().settings = Arc::new(settings);
        let writer = queue.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_all(sink))?;
        Ok(queue)
    }

    /// Other settings from the next record on, and another sink if there is one.
    pub(super) fn change(&self, settings: LogSettings, sink: Option<Box<dyn Sink>>) {
        let mut state = self.state();
        state.settings = Arc::new(settings);
        state.next_sink = sink.or_else(|| state.next_sink.take());
        self.shared.news.notify_all();
    }

    /// Takes a record, if there is room.
    pub(super) fn push(&self, record: Record) {
        let mut state = self.state();
        if state.records.len() >= state.settings.max_queue_size.max(1) {
            state.lost = state.lost.saturating_add(1);
            return;
        }
        state.records.push_back(record);
        self.shared.news.notify_all();
    }

    pub(super) fn counters(&self) -> Counters {
        let state = self.state();
        Counters { queue_size: state.records.len(), records_lost: state.lost }
    }

    /// Waits until everything is written, `limit` at most.
    pub(super) fn drain(&self, limit: Duration) {
        let state = self.state();
        let waited = self.shared.idle.wait_timeout_while(state, limit, |state| !state.is_idle());
        drop(waited);
    }

    /// Ends the thread when everything is written.
    #[cfg(test)]
    pub(super) fn end(&self) {
        self.state().has_ended = true;
        self.shared.news.notify_all();
    }

    fn write_all(&self, mut sink: Box<dyn Sink>) {
        let mut is_broken = false;
        while let Some((record, settings, lost)) = self.next(&mut sink) {
            if lost > 0 {
                let text = format!(
                    "{lost} records of the log were lost: they came faster than they could be written"
                );
                let own = Record::own(LogLevel::Warning, text);
                drop(sink.write(&format::line(&own, &settings)));
            }
            let written = sink.write(&format::line(&record, &settings));
            self.note(&written, &mut is_broken, settings.file.is_some());
        }
    }

    /// The next record to be written, and how many were lost before it.
    fn next(&self, sink: &mut Box<dyn Sink>) -> Option<(Record, Arc<LogSettings>, u64)> {
        let mut state = self.state();
        state.is_writing = false;
        loop {
            if let Some(next) = state.next_sink.take() {
                *sink = next;
            }
            if let Some(record) = state.records.pop_front() {
                if state.is_repeated(&record) {
                    continue;
                }
                state.is_writing = true;
                let lost = state.lost.saturating_sub(state.told);
                state.told = state.lost;
                return Some((record, Arc::clone(&state.settings), lost));
            }
            self.shared.idle.notify_all();
            if state.has_ended {
                return None;
            }
            state = self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A record that was not written is lost; that the file is to blame is said once, on standard error.
    fn note(&self, written: &io::Result<()>, is_broken: &mut bool, is_file: bool) {
        match written {
            Ok(()) => *is_broken = false,
            Err(error) => {
                let mut state = self.state();
                state.lost = state.lost.saturating_add(1);
                state.told = state.lost.min(state.told.saturating_add(1));
                drop(state);
                if is_file && !std::mem::replace(is_broken, true) {
                    let text = format!("the log file cannot be written, records are lost: {error}\n");
                    drop(io::Write::write_all(&mut io::stderr().lock(), text.as_bytes()));
                }
            }
        }
    }
}

impl State {
    /// A heartbeat equal to the one before it, with nothing between them.
    fn is_repeated(&mut self, record: &Record) -> bool {
        if !record.is_heartbeat() {
            self.last_heartbeat = None;
            return false;
        }
        let is_known = self.last_heartbeat.as_ref() == Some(&record.message);
        self.last_heartbeat = Some(record.message.clone());
        is_known && self.settings.deduplicate_heartbeat_logs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::format::Template;
    use super::super::settings::LogForm;
    use super::*;

    /// Each write waits until it is let go on.
    struct Gate {
        go: Receiver<io::Result<()>>,
        wrote: Sender<String>,
    }

    impl Sink for Gate {
        fn write(&mut self, line: &str) -> io::Result<()> {
            self.wrote.send(line.to_owned()).map_err(io::Error::other)?;
            self.go.recv().map_err(io::Error::other)?
        }
    }

    fn gated(settings: LogSettings) -> (Queue, Sender<io::Result<()>>, Receiver<String>) {
        let ((go, wait), (wrote, seen)) = (channel(), channel());
        let form = LogForm::Plain(Template::parse("%(message)s").expect("a format"));
        let settings = LogSettings { form, ..settings };
        let queue = Queue::start(settings, Box::new(Gate { go: wait, wrote })).expect("a thread");
        (queue, go, seen)
    }

    fn push(queue: &Queue, message: &str) {
        queue.push(Record::own(LogLevel::Info, message.to_owned()));
    }

    #[test]
    fn a_hanging_sink_costs_records_and_delays_nobody() {
        let (queue, go, seen) = gated(LogSettings { max_queue_size: 2, ..LogSettings::default() });
        push(&queue, "first");
        assert_eq!(seen.recv().expect("written"), "first");
        // The sink hangs in its first write.
        for message in ["a", "b", "c", "d"] {
            push(&queue, message);
        }
        assert_eq!(queue.counters(), Counters { queue_size: 2, records_lost: 2 });
        queue.drain(Duration::from_millis(10));
        for _ in 0..4 {
            go.send(Ok(())).expect("hangs");
        }
        let written: Vec<String> = (0..3).map(|_| seen.recv().expect("written")).collect();
        assert!(written[0].starts_with("2 records of the log were lost"), "{written:?}");
        assert_eq!(written[1..], ["a", "b"]);
        queue.drain(Duration::from_secs(10));
        assert_eq!(queue.counters(), Counters { queue_size: 0, records_lost: 2 });
        queue.end();
    }

    #[test]
    fn a_record_that_cannot_be_written_is_lost() {
        let (queue, go, seen) = gated(LogSettings::default());
        go.send(Err(io::Error::other("full"))).expect("sent");
        go.send(Ok(())).expect("sent");
        push(&queue, "lost");
        push(&queue, "kept");
        queue.drain(Duration::from_secs(10));
        assert_eq!(queue.counters().records_lost, 1);
        assert_eq!(seen.iter().take(2).collect::<Vec<_>>(), ["lost", "kept"]);
        queue.end();
    }

    #[test]
    fn a_repeated_heartbeat_is_left_out() {
        let settings = LogSettings { deduplicate_heartbeat_logs: true, ..LogSettings::default() };
        let (queue, go, seen) = gated(settings);
        for _ in 0..5 {
            go.send(Ok(())).expect("sent");
        }
        let beat = "no action. I am (a), the leader with the lock";
        for message in [beat, beat, "news", beat, beat, "end"] {
            push(&queue, message);
        }
        queue.drain(Duration::from_secs(10));
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [beat, "news", beat, "end"]);
        queue.end();
    }

    #[test]
    fn settings_change_from_the_next_record_on() {
        let (queue, go, seen) = gated(LogSettings::default());
        go.send(Ok(())).expect("sent");
        push(&queue, "before");
        queue.drain(Duration::from_secs(10));
        let form = LogForm::Plain(Template::parse("<%(message)s>").expect("a format"));
        let ((go_2, wait), (wrote, seen_2)) = (channel(), channel());
        go_2.send(Ok(())).expect("sent");
        queue
            .change(LogSettings { form, ..LogSettings::default() }, Some(Box::new(Gate { go: wait, wrote })));
        push(&queue, "after");
        assert_eq!(seen_2.recv().expect("written"), "<after>");
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["before"]);
        queue.end();
    }
}
