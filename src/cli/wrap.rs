//! Sentences in lines of a width.

/// Breaks a text between words. The first line begins with `first`, the others with `rest`.
pub(super) fn wrapped(text: &str, first: &str, rest: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = first.to_owned();
    let mut is_begun = false;
    for word in text.split_whitespace() {
        let length = line.chars().count() + usize::from(is_begun) + word.chars().count();
        if is_begun && length > width {
            lines.push(std::mem::replace(&mut line, rest.to_owned()));
            is_begun = false;
        }
        if is_begun {
            line.push(' ');
        }
        line.push_str(word);
        is_begun = true;
    }
    lines.push(line);
    lines.join("\n") + "\n"
}

/// A list under a heading, an item a paragraph.
pub(super) fn section(heading: &str, items: &[String], width: usize) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: String = items.iter().map(|item| wrapped(item, "  - ", "    ", width)).collect();
    format!("\n{heading}\n{items}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrapped("one two three", "- ", "  ", 9), "- one two\n  three\n");
        assert_eq!(wrapped("incomprehensible word", "", " ", 5), "incomprehensible\n word\n");
        assert_eq!(wrapped("", "- ", "  ", 9), "- \n");
        assert_eq!(section("Nothing:", &[], 80), "");
    }
}
