//! The member table: redrawn in place on a terminal, a line per change elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use crate::harness::cluster::Cluster;

/// Where the table is drawn.
pub(crate) struct Screen {
    is_terminal: bool,
    drawn_lines: usize,
    last: String,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), drawn_lines: 0, last: String::new() }
    }

    pub(crate) async fn draw(&mut self, cluster: &Cluster, begin: Instant, phase: &str) {
        let rows = rows(cluster).await;
        let seconds = begin.elapsed().as_secs_f64();
        if self.is_terminal {
            self.redraw(&rows, seconds, phase);
            return;
        }
        let line =
            rows.iter().map(|row| format!("{} {} {}", row[0], row[2], row[3])).collect::<Vec<_>>().join(", ");
        if line != self.last {
            println!("{seconds:6.1} s  {line}");
            self.last = line;
        }
    }

    fn redraw(&mut self, rows: &[[String; 6]], seconds: f64, phase: &str) {
        let titles = ["Member", "Port", "Role", "State", "TL", "Lag"].map(str::to_owned);
        let mut lines = vec![format!("{phase}, {seconds:.1} s")];
        let mut widths = [0_usize; 6];
        for row in std::iter::once(&titles).chain(rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in std::iter::once(&titles).chain(rows) {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            lines.push(format!("  {}", cells.collect::<Vec<_>>().join("  ")));
        }
        let mut out = std::io::stdout().lock();
        // Up to the first line of the last picture, then everything anew.
        let up = if self.drawn_lines > 0 { format!("\x1b[{}A", self.drawn_lines) } else { String::new() };
        // A line that is wider than the terminal is cut by it: wrapped, it would be more lines than are gone up by.
        let picture: String = lines.iter().map(|line| format!("\x1b[2K\x1b[?7l{line}\x1b[?7h\n")).collect();
        // A terminal that went away ends the demo by its signal.
        drop(out.write_all((up + "\r" + &picture).as_bytes()).and_then(|()| out.flush()));
        self.drawn_lines = lines.len();
    }
}

/// One row a node, also for those which nobody knows yet.
async fn rows(cluster: &Cluster) -> Vec<[String; 6]> {
    let known = cluster.rows().await.unwrap_or_default();
    let mut rows = Vec::new();
    for (_, node) in cluster.data_nodes() {
        let row = known.iter().find(|row| row.name == node.name);
        let cells = match row {
            Some(row) => [&row.role, &row.state, &row.timeline, &row.lag].map(Clone::clone),
            None => ["-".to_owned(), last_word(&node.log_tail(1)), String::new(), String::new()],
        };
        let [role, state, timeline, lag] = cells;
        rows.push([node.name.clone(), node.ports.postgresql.to_string(), role, state, timeline, lag]);
    }
    rows
}

/// A node that is in no table yet says in its log what it is about.
fn last_word(line: &str) -> String {
    const WIDTH: usize = 50;
    let message = line.split_once(": ").map_or(line, |(_, message)| message);
    // Which rule decided is for readers of the log.
    let message = message.split_once(" (rule ").map_or(message, |(message, _)| message);
    if message.is_empty() {
        return "starting".to_owned();
    }
    let more = if message.chars().count() > WIDTH { "…" } else { "" };
    message.chars().take(WIDTH).collect::<String>() + more
}
