//! Source text, read just well enough: comments, strings and test modules blanked out, line numbers kept.

use std::path::Path;

/// One file of the product.
pub(crate) struct Source {
    /// Relative to the repository, with slashes.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) raw: String,
    /// Without comments, texts of strings, and test modules; the same lines.
    code: String,
}

/// Every Rust file that is shipped; files which hold only tests are left out.
pub(crate) fn product_sources() -> Vec<Source> {
    let root = crate::repository();
    let mut found = Vec::new();
    for directory in ["src", "raft/src", "storage/src", "witness/src"] {
        visit(&root.join(directory), &mut |path| {
            let relative = path.strip_prefix(&root).expect("below the repository");
            let name = relative.to_string_lossy().replace('\\', "/");
            let is_test =
                name.ends_with("tests.rs") || name.ends_with("testscripts.rs") || name.contains("/tests/");
            if name.ends_with(".rs") && !is_test {
                found.push(Source::new(&name, &std::fs::read_to_string(path).expect("a source file")));
            }
        });
    }
    assert!(found.len() > 20, "only {} source files found", found.len());
    found
}

/// Calls `found` for every file below a directory, in order.
pub(crate) fn visit(directory: &Path, found: &mut dyn FnMut(&Path)) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            visit(&path, found);
        } else {
            found(&path);
        }
    }
}

impl Source {
    pub(crate) fn new(path: &str, raw: &str) -> Self {
        let code = without_tests(&without_comments_and_texts(raw));
        Self { path: path.to_owned(), raw: raw.to_owned(), code }
    }

    /// Numbered lines up to the end of the product's code, without the tests.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.trim_end().lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Every path in the file which leaves its module, resolved to `crate::…` or an extern crate.
    pub(crate) fn imports(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        let tokens = tokens(&self.code);
        let mut index = 0;
        while index < tokens.len() {
            let (line, word) = &tokens[index];
            let begins = index == 0 || tokens[index - 1].1 != "::";
            // `impl Trait + use<..>` imports nothing.
            if word == "use" && tokens.get(index + 1).is_none_or(|next| next.1 != "<") {
                index += 1;
                let mut paths = Vec::new();
                index = use_tree(&tokens, index, &mut Vec::new(), &mut paths);
                found.extend(paths.into_iter().map(|path| (*line, self.resolve(path))));
            } else if begins
                && is_identifier(word)
                && tokens.get(index + 1).is_some_and(|next| next.1 == "::")
            {
                let mut path = vec![word.clone()];
                while tokens.get(index + 1).is_some_and(|next| next.1 == "::")
                    && tokens.get(index + 2).is_some_and(|next| is_identifier(&next.1))
                {
                    path.push(tokens[index + 2].1.clone());
                    index += 2;
                }
                found.push((*line, self.resolve(path)));
            }
            index += 1;
        }
        found
    }

    /// Replaces leading `self` and `super` by the place in the crate.
    fn resolve(&self, path: Vec<String>) -> Vec<String> {
        if !matches!(path.first().map(String::as_str), Some("self" | "super")) {
            return path;
        }
        let inside = self.path.split_once("src/").map_or("", |(_, rest)| rest);
        let mut module: Vec<String> = inside
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .filter(|part| part != "mod")
            .collect();
        let mut rest = path.into_iter().peekable();
        while let Some(part) = rest.next_if(|part| part == "self" || part == "super") {
            if part == "super" {
                module.pop();
            }
        }
        std::iter::once("crate".to_owned()).chain(module).chain(rest).collect()
    }

    /// Functions: line, name, number of lines with code.
    pub(crate) fn functions(&self) -> Vec<(usize, String, usize)> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        for (index, (line, word)) in tokens.iter().enumerate() {
            let Some((_, name)) = tokens.get(index + 1).filter(|_| word == "fn") else { continue };
            let mut depth = 0_i32;
            let mut end = *line;
            for (at, token) in &tokens[index..] {
                match token.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    ";" if depth == 0 => break,
                    _ => continue,
                }
                end = *at;
                if depth == 0 {
                    break;
                }
            }
            let length =
                self.code.lines().skip(line - 1).take(end + 1 - line).filter(|l| !l.trim().is_empty());
            found.push((*line, name.clone(), length.count()));
        }
        found
    }

    /// The variants of an enum without payloads that nest braces.
    pub(crate) fn variants(&self, name: &str) -> Vec<String> {
        let Some((_, body)) = self.code.split_once(&format!("enum {name} {{")) else { return Vec::new() };
        let body = body.split('}').next().unwrap_or("");
        body.split(',').map(|item| item.trim().to_owned()).filter(|item| is_identifier(item)).collect()
    }
}

/// Reads `a::{b, c::d as e, *}` into its paths; returns the index behind it.
fn use_tree(
    tokens: &[(usize, String)],
    mut index: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<Vec<String>>,
) -> usize {
    let depth = prefix.len();
    while let Some((_, token)) = tokens.get(index) {
        match token.as_str() {
            "::" => {}
            "{" => {
                index += 1;
                while tokens.get(index).is_some_and(|token| token.1 != "}" && token.1 != ";") {
                    index = use_tree(tokens, index, prefix, paths);
                    if tokens.get(index).is_some_and(|token| token.1 == ",") {
                        index += 1;
                    }
                }
                prefix.truncate(depth);
                return index + 1;
            }
            "as" => index += 1,
            "," | ";" | "}" => break,
            word => prefix.push(word.to_owned()),
        }
        index += 1;
    }
    paths.push(prefix.clone());
    prefix.truncate(depth);
    index
}

fn is_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && word.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and single signs, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if first.is_alphanumeric() || first == '_' {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, behind) = rest.split_at(length);
            found.push((index + 1, token.to_owned()));
            rest = behind.trim_start();
        }
    }
    found
}

/// Blanks comments, and the insides of strings and character literals.
fn without_comments_and_texts(raw: &str) -> String {
    let chars: Vec<char> = raw.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(raw.len());
    let mut index = 0;
    while index < chars.len() {
        let end = match (at(index), at(index + 1)) {
            ('/', '/') => (index..chars.len()).find(|i| at(*i) == '\n').unwrap_or(chars.len()),
            ('/', '*') => end_of_block_comment(&chars, index),
            ('"', _) => end_of_string(&chars, index),
            ('r', '"' | '#') if !index.checked_sub(1).is_some_and(|i| is_word(at(i))) => {
                end_of_raw_string(&chars, index)
            }
            ('\'', '\\') => (index + 3..chars.len()).find(|i| at(*i) == '\'').map_or(chars.len(), |i| i + 1),
            ('\'', _) if at(index + 2) == '\'' => index + 3,
            _ => index,
        };
        if end == index {
            code.push(at(index));
            index += 1;
        } else {
            code.extend(chars[index..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            index = end;
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0_i32;
    let mut index = start;
    while index + 1 < chars.len() {
        match (chars[index], chars[index + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
        if depth == 0 {
            return index;
        }
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while index < chars.len() {
        match chars[index] {
            '\\' => index += 2,
            '"' => return index + 1,
            _ => index += 1,
        }
    }
    chars.len()
}

/// The end of `r"…"` or `r#"…"#`; the start itself when it is none (a raw identifier).
fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return start;
    }
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = start + 2 + hashes;
    (body..chars.len()).find(|i| chars[*i..].starts_with(&closing)).map_or(chars.len(), |i| i + closing.len())
}

/// Blanks every `#[cfg(test)]` item that has a body, and drops what belongs to it.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut rest = code;
    let mut kept = String::with_capacity(code.len());
    while let Some((before, behind)) = rest.split_once(MARK) {
        kept.push_str(before);
        let end = end_of_item(behind);
        kept.extend(behind[..end].chars().filter(|c| *c == '\n'));
        rest = &behind[end..];
    }
    kept.push_str(rest);
    kept
}

/// The end of the first item of a text: its closing brace, or a semicolon before any brace.
fn end_of_item(text: &str) -> usize {
    let mut depth = 0_i32;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return index + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        Source::new("src/ha/primary.rs", code).imports().iter().map(|(_, path)| path.join("::")).collect()
    }

    #[test]
    fn imports_are_found_whatever_their_form() {
        assert_eq!(
            paths("use std::{collections::{BTreeMap, BTreeSet as Set}, fmt};"),
            ["std::collections::BTreeMap", "std::collections::BTreeSet", "std::fmt"]
        );
        assert_eq!(paths("fn f() { super::super::agent::act() }"), ["crate::agent::act"]);
        assert_eq!(paths("use super::facts::*;"), ["crate::ha::facts::*"]);
        assert_eq!(paths("// use tokio::spawn;\nlet a = \"tokio::spawn\"; r#\"tokio::x\"#;"), [""; 0]);
        assert_eq!(paths("fn f() {}\n#[cfg(test)]\nmod tests { use tokio::time; }"), [""; 0]);
    }

    #[test]
    fn an_import_against_the_arrows_is_found() {
        let check = |file: &str, path: &str| {
            let path: Vec<String> = path.split("::").map(str::to_owned).collect();
            crate::layers::violation(file, &path).is_some()
        };
        assert!(check("src/ha/primary.rs", "crate::agent::act"));
        assert!(check("src/ha/primary.rs", "tokio::time"));
        assert!(check("src/ha/primary.rs", "pgherd_raft::group::Group"));
        assert!(!check("src/ha/primary.rs", "pgherd_raft::model::Epoch"));
        assert!(check("raft/src/model/apply.rs", "crate::lease::Holder"));
        assert!(check("src/postgres/mod.rs", "crate::guard::Guard"));
        assert!(check("src/api/mod.rs", "crate::postgres::Postgres"));
        assert!(check("witness/src/main.rs", "pgherd::ha"));
        assert!(check("raft/src/group.rs", "sled::Db"));
        assert!(!check("src/agent/mod.rs", "crate::postgres::Postgres"));
    }

    #[test]
    fn functions_are_measured_without_blank_lines_and_comments() {
        let source = Source::new("src/x.rs", "fn a();\nfn b() {\n    // why\n\n    let c = '{';\n}\n");
        assert_eq!(source.functions(), [(1, "a".to_owned(), 1), (2, "b".to_owned(), 3)]);
    }

    #[test]
    fn variants_are_listed() {
        let source = Source::new("src/x.rs", "pub enum Rule {\n    /// A, b.\n    One,\n    Two,\n}\n");
        assert_eq!(source.variants("Rule"), ["One", "Two"]);
    }
}
