//! The distributions of the write gaps as a picture (SVG) without a background: its colours are readable on a light and
//! on a dark one.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;

use crate::classes::Class;
use crate::figures::quantile;
use crate::results::Results;

const TEXT: &str = "#7d8590";
const GRID: &str = "#7d859055";
const DIRECT: &str = "#2f81f7";
const PROXY: &str = "#c4781c";

/// In pixels.
const WIDTH: f64 = 900.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 62.0;
const ROW: f64 = 38.0;
const BOTTOM: f64 = 34.0;
/// The ends of the axis, in seconds: the pace of the clients' writes is about the left one.
const FIRST: f64 = 0.005;
const LAST: f64 = 20.0;
const MARKS: &[(f64, &str)] = &[
    (0.01, "10 ms"),
    (0.03, "30 ms"),
    (0.1, "0.1 s"),
    (0.3, "0.3 s"),
    (1.0, "1 s"),
    (3.0, "3 s"),
    (10.0, "10 s"),
];

/// Where a gap stands on the logarithmic axis.
fn x(seconds: f64) -> f64 {
    let share = (seconds.clamp(FIRST, LAST) / FIRST).ln() / (LAST / FIRST).ln();
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

pub(crate) fn draw(runs: &[(&'static Class, Results)]) -> Result<String> {
    let rows = f64::from(u32::try_from(runs.len())?);
    let height = TOP + rows * ROW + BOTTOM;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" font-size=\"13\" fill=\"{TEXT}\" role=\"img\">"
    )?;
    writeln!(svg, "<title>For how long nobody can write, by fault</title>")?;
    legend(&mut svg)?;
    for (seconds, label) in MARKS {
        let (x, bottom) = (x(*seconds), height - BOTTOM);
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"{GRID}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"12\">{label}</text>",
            TOP - 4.0,
            bottom + 18.0,
        )?;
    }
    let mut y = TOP;
    for (class, run) in runs {
        row(&mut svg, y, class, run)?;
        y += ROW;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn legend(svg: &mut String) -> Result<()> {
    writeln!(
        svg,
        "<text x=\"0\" y=\"18\" font-size=\"15\" font-weight=\"600\">For how long nobody can write</text>\
         <text x=\"0\" y=\"40\">A dot is a fault; thick mark: p50, thin mark: p99</text>\
         <circle cx=\"{LEFT}\" cy=\"14\" r=\"4\" fill=\"{DIRECT}\"/><text x=\"{:.0}\" y=\"18\">client that knows all nodes</text>\
         <circle cx=\"{:.0}\" cy=\"14\" r=\"4\" fill=\"{PROXY}\"/><text x=\"{:.0}\" y=\"18\">through HAProxy</text>\
         <text x=\"{WIDTH}\" y=\"40\" text-anchor=\"end\">p50 / p99</text>",
        LEFT + 10.0,
        LEFT + 200.0,
        LEFT + 210.0,
    )?;
    Ok(())
}

fn row(svg: &mut String, y: f64, class: &Class, run: &Results) -> Result<()> {
    let middle = y + ROW / 2.0;
    writeln!(svg, "<line x1=\"0\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\" stroke=\"{GRID}\"/>")?;
    writeln!(
        svg,
        "<text x=\"0\" y=\"{:.1}\">{}<tspan dx=\"5\" font-size=\"11\">({}, ttl {})</tspan></text>",
        middle + 4.0,
        class.title,
        class.mode.as_str(),
        class.ttl,
    )?;
    lane(svg, middle - 8.0, DIRECT, &run.of(|sample| sample.direct))?;
    lane(svg, middle + 8.0, PROXY, &run.of(|sample| sample.proxy))
}

fn lane(svg: &mut String, y: f64, colour: &str, samples: &[Duration]) -> Result<()> {
    for sample in samples {
        let x = x(sample.as_secs_f64());
        writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\" fill=\"{colour}\" fill-opacity=\"0.45\"/>"
        )?;
    }
    let (p50, p99) = (quantile(samples, 50).as_secs_f64(), quantile(samples, 99).as_secs_f64());
    for (at, width) in [(p50, 3.0), (p99, 1.2)] {
        let x = x(at);
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            y - 7.0,
            y + 7.0,
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"12\" fill=\"{colour}\">{p50:.2} / {p99:.2} s</text>",
        y + 4.0,
    )?;
    Ok(())
}
