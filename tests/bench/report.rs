//! The table of the fault classes, in Markdown.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::classes::Class;
use crate::figures::{self, quantile};
use crate::picture;
use crate::results::{self, Results};

/// Writes the table and the picture from the kept results.
pub(crate) fn write(file: &Path) -> Result<()> {
    let runs = results::last_of_each(file)?;
    let directory = results::documents();
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let documents = [("write-gaps.md", page(&runs)?), ("write-gaps.svg", picture::draw(&runs)?)];
    for (name, text) in documents {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The figures of one run as plain text.
pub(crate) fn print(class: &Class, run: &Results) {
    let name = class.describe();
    figures::print(&format!("{name}, write gap, direct"), &run.of(|sample| sample.direct));
    figures::print(&format!("{name}, write gap, through HAProxy"), &run.of(|sample| sample.proxy));
    figures::print(&format!("{name}, put back in place"), &run.of(|sample| sample.back));
    println!("{name}, acknowledged writes lost: {} in {} faults", run.lost(), run.samples.len());
    if class.asks_for_two_writers() {
        println!("{name}, two writers: {} at most", seconds(run.two_writers()));
    }
    println!(
        "{name}: took {:.1} min, load average {} before, {} after",
        run.took.as_secs_f64() / 60.0,
        run.load.0,
        run.load.1
    );
}

fn page(runs: &[(&'static Class, Results)]) -> Result<String> {
    let mut text = String::from(
        "# For how long nobody can write\n\n\
         <!-- Made by `make bench`, or from the kept results by `make bench BENCH_ARGS=picture`. -->\n\n\
         ![Write gaps by fault](write-gaps.svg)\n\n\
         Three data nodes on one machine, clients that write every few milliseconds. A gap is the time between two acknowledged\n\
         writes of a client, directly (it knows all nodes) and through HAProxy with the template of the README. `ttl` is in\n\
         seconds. *Lost* counts acknowledged writes that are gone, *two writers* is the longest time in which two nodes both\n\
         acknowledged writes, asked of each node by a client of its own, and *failed* counts the direct client's failed connections and\n\
         writes a fault.\n\n\
         | fault | mode | ttl | N | direct p50 / p99 / max | HAProxy p50 / p99 / max | lost | failed | two writers | goal p50 / p99 |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (class, run) in runs {
        row(&mut text, class, run)?;
    }
    text.push_str("\nThe runs:\n\n| run | at | build | load before / after | took | put back p50 | gap meanwhile, max |\n|---|---|---|---|---|---|---|\n");
    for (class, run) in runs {
        writeln!(
            text,
            "| `{}` | {} | {}, {} cores, {} | {} / {} | {:.1} min | {} | {} |",
            class.name,
            run.at,
            run.build,
            run.cores,
            run.postgresql,
            run.load.0,
            run.load.1,
            run.took.as_secs_f64() / 60.0,
            seconds(quantile(&run.of(|sample| sample.back), 50)),
            seconds(quantile(&run.of(|sample| sample.second), 100)),
        )?;
    }
    Ok(text)
}

fn row(text: &mut String, class: &Class, run: &Results) -> Result<()> {
    let gaps = |samples: &[Duration]| {
        let of = |percent| seconds(quantile(samples, percent));
        format!("{} / {} / {}", of(50), of(99), of(100))
    };
    let two_writers = match class.asks_for_two_writers() {
        true => seconds(run.two_writers()),
        false => String::new(),
    };
    let goal = class.goal.map_or_else(String::new, |(p50, p99)| match p99 {
        0 => "no write fails".to_owned(),
        _ => format!("{} / {}", seconds(Duration::from_millis(p50)), seconds(Duration::from_millis(p99))),
    });
    writeln!(
        text,
        "| {} | {} | {} | {} | {} | {} | {} | {} | {two_writers} | {goal} |",
        class.title,
        class.mode.as_str(),
        class.ttl,
        run.samples.len(),
        gaps(&run.of(|sample| sample.direct)),
        gaps(&run.of(|sample| sample.proxy)),
        run.lost(),
        run.failed().div_ceil(run.samples.len().max(1)),
    )?;
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
