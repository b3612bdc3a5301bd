//! What differs between two texts, as a unified diff.

/// Lines around a difference that are shown with it.
const CONTEXT: usize = 3;
/// The table for the longest common part has at most so many cells; beyond it everything between the common beginning and
/// the common end is shown as replaced.
const MAX_CELLS: usize = 4_000_000;

/// A line of a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The diff, a line an entry; empty when the texts are equal.
pub(super) fn unified(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    if old == new {
        return Vec::new();
    }
    let lines = compared(&old, &new);
    let mut out = vec!["--- ".to_owned(), "+++ ".to_owned()];
    for hunk in hunks(&lines) {
        out.extend(drawn(&lines, hunk));
    }
    out
}

fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail =
        old.iter().skip(head).rev().zip(new.iter().skip(head).rev()).take_while(|(a, b)| a == b).count();
    let middle = |lines: &[&'a str]| -> Vec<&'a str> {
        lines.iter().take(lines.len() - tail).skip(head).copied().collect()
    };
    let mut lines: Vec<Line<'a>> = old.iter().take(head).map(|line| Line::Same(line)).collect();
    lines.extend(replaced(&middle(old), &middle(new)));
    lines.extend(old.iter().skip(old.len() - tail).map(|line| Line::Same(line)));
    lines
}

/// The longest common part is kept.
fn replaced<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    let gone = old.iter().map(|line| Line::Gone(line));
    if old.len().saturating_mul(width) > MAX_CELLS {
        return gone.chain(new.iter().map(|line| Line::New(line))).collect();
    }
    // longest[i * width + j]: of the lines from i and j on.
    let mut longest = vec![0_u32; (old.len() + 1) * width];
    let at = |longest: &[u32], i: usize, j: usize| longest.get(i * width + j).copied().unwrap_or(0);
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            let length = if a == b {
                at(&longest, i + 1, j + 1) + 1
            } else {
                at(&longest, i + 1, j).max(at(&longest, i, j + 1))
            };
            if let Some(cell) = longest.get_mut(i * width + j) {
                *cell = length;
            }
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => {
                lines.push(Line::Same(a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), other) if other.is_none() || at(&longest, i + 1, j) >= at(&longest, i, j + 1) => {
                lines.push(Line::Gone(a));
                i += 1;
            }
            (_, Some(b)) => {
                lines.push(Line::New(b));
                j += 1;
            }
            (Some(_), None) | (None, None) => return lines,
        }
    }
}

/// Ranges of lines that are shown together.
fn hunks(lines: &[Line<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut hunks: Vec<std::ops::Range<usize>> = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        if matches!(line, Line::Same(_)) {
            continue;
        }
        let (from, to) = (place.saturating_sub(CONTEXT), (place + 1 + CONTEXT).min(lines.len()));
        match hunks.last_mut().filter(|last| last.end >= from) {
            Some(last) => last.end = to,
            None => hunks.push(from..to),
        }
    }
    hunks
}

fn drawn(lines: &[Line<'_>], hunk: std::ops::Range<usize>) -> Vec<String> {
    let in_old = |line: &&Line<'_>| !matches!(line, Line::New(_));
    let in_new = |line: &&Line<'_>| !matches!(line, Line::Gone(_));
    let before = lines.iter().take(hunk.start);
    let shown: Vec<&Line<'_>> = lines.iter().take(hunk.end).skip(hunk.start).collect();
    let old = range(before.clone().filter(in_old).count(), shown.iter().copied().filter(in_old).count());
    let new = range(before.filter(in_new).count(), shown.iter().copied().filter(in_new).count());
    let mut out = vec![format!("@@ -{old} +{new} @@")];
    out.extend(shown.iter().map(|line| match line {
        Line::Same(text) => format!(" {text}"),
        Line::Gone(text) => format!("-{text}"),
        Line::New(text) => format!("+{text}"),
    }));
    out
}

/// First line and number of lines; an empty range is named by the line before it.
fn range(before: usize, count: usize) -> String {
    match count {
        0 => format!("{before},0"),
        1 => format!("{}", before + 1),
        _ => format!("{},{count}", before + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_do_not_differ() {
        assert!(unified("a\nb\n", "a\nb\n").is_empty());
    }

    #[test]
    fn one_line_in_the_middle() {
        let before = "a: 1\nb: 2\nc: 3\nd: 4\ne: 5\nf: 6\ng: 7\nh: 8\n";
        let after = before.replace("e: 5\n", "e: 6\nnew: 1\n");
        let expected = [
            "--- ",
            "+++ ",
            "@@ -2,7 +2,8 @@",
            " b: 2",
            " c: 3",
            " d: 4",
            "-e: 5",
            "+e: 6",
            "+new: 1",
            " f: 6",
            " g: 7",
            " h: 8",
        ];
        assert_eq!(unified(before, &after), expected);
    }

    #[test]
    fn far_apart_are_two_hunks() {
        let before: String = (0..20).map(|number| format!("{number}\n")).collect();
        let after = before.replacen("1\n", "x\n", 1).replace("18\n", "");
        let diff = unified(&before, &after);
        let headers: Vec<&String> = diff.iter().filter(|line| line.starts_with("@@")).collect();
        assert_eq!(headers, ["@@ -1,5 +1,5 @@", "@@ -16,5 +16,4 @@"]);
    }

    #[test]
    fn from_nothing() {
        assert_eq!(unified("", "a\nb\n"), ["--- ", "+++ ", "@@ -0,0 +1,2 @@", "+a", "+b"]);
        assert_eq!(unified("a\n", ""), ["--- ", "+++ ", "@@ -1 +0,0 @@", "-a"]);
    }

    #[test]
    fn the_common_part_is_kept() {
        let lines = replaced(&["a", "b", "c", "d"], &["b", "x", "d", "e"]);
        let same: Vec<_> = lines.iter().filter(|line| matches!(line, Line::Same(_))).collect();
        assert_eq!(same, [&Line::Same("b"), &Line::Same("d")]);
    }
}
