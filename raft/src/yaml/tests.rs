use super::*;

fn value(text: &str) -> Value {
    load(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).root.value
}

fn json(text: &str) -> serde_json::Value {
    load(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).root.to_json()
}

fn error(text: &str) -> String {
    load(text).expect_err(text).to_string()
}

fn spelled(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => format!("int {number}"),
        Value::Float(number) if number.is_nan() => "float nan".to_owned(),
        Value::Float(number) => format!("float {number:?}"),
        Value::Text(text) => format!("text {text}"),
        list_or_map @ (Value::List(_) | Value::Map(_)) => format!("{list_or_map:?}"),
    }
}

#[test]
fn scalars_are_read_as_pyyaml_reads_them() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in include_str!("testdata/pyyaml-scalars.txt").lines().filter(|line| !line.starts_with("# ")) {
        let (scalar, expected) = line.split_once('\t').expect("a tab");
        let read = match load(&format!("k: {scalar}\n")) {
            Ok(document) => {
                let Value::Map(map) = &document.root.value else { panic!("{scalar}: not a map") };
                spelled(&map.get("k").expect("k").value)
            }
            Err(_) => "error".to_owned(),
        };
        count += 1;
        // Rust and Python write large exponents differently; the number is the same.
        let same_number = match (read.strip_prefix("float "), expected.strip_prefix("float ")) {
            (Some(read), Some(expected)) => read.parse::<f64>() == expected.parse::<f64>(),
            _ => false,
        };
        if read != expected && !same_number {
            wrong.push(format!("{scalar:?}: PyYAML {expected:?}, we {read:?}"));
        }
    }
    assert!(count > 180, "{count} rows");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn places_count_from_one() {
    let document =
        load("# comment\nrestapi:\n  listen: 127.0.0.1:8008\n  list:\n  - a\n  - {b: c}\n").expect("valid");
    let Value::Map(top) = &document.root.value else { panic!("a map") };
    let restapi = top.entry("restapi").expect("restapi");
    assert_eq!(restapi.place, Place::Text { line: 2, column: 1 });
    let Value::Map(map) = &restapi.value.value else { panic!("a map") };
    let listen = map.entry("listen").expect("listen");
    assert_eq!(listen.place, Place::Text { line: 3, column: 3 });
    assert_eq!(listen.value.place, Place::Text { line: 3, column: 11 });
    let Value::List(items) = &map.get("list").expect("list").value else { panic!("a list") };
    assert_eq!(items[1].place, Place::Text { line: 6, column: 5 });
}

#[test]
fn aliases_stand_for_their_anchor() {
    assert_eq!(json("a: &x {b: [1]}\nc: *x\n"), serde_json::json!({"a": {"b": [1]}, "c": {"b": [1]}}));
    assert_eq!(json("&k key: 1\nother: *k\n"), serde_json::json!({"key": 1, "other": "key"}));
}

#[test]
fn merge_keys_give_what_the_map_lacks() {
    let text = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\none:\n  b: own\n  <<: *base\nboth:\n  <<: [*base, *more]\n";
    let read = json(text);
    assert_eq!(read["one"], serde_json::json!({"a": 1, "b": "own"}));
    assert_eq!(read["both"], serde_json::json!({"a": 1, "b": 2, "c": 4}));
    assert_eq!(json("'<<': 1\n"), serde_json::json!({"<<": 1}), "a quoted one is a key");
    assert_eq!(
        error("a: 1\nb:\n  <<: 3\n"),
        "line 3, column 7: a merge key `<<` takes a map or a list of maps; write `<<: *NAME`, where `&NAME` marks a map"
    );
}

#[test]
fn the_last_of_a_double_key_counts_and_is_reported() {
    let document = load("a: 1\nb: 2\na: 3\n").expect("valid");
    assert_eq!(document.root.to_json(), serde_json::json!({"a": 3, "b": 2}));
    let place = |line| Place::Text { line, column: 1 };
    assert_eq!(document.duplicates, [Duplicate { key: "a".to_owned(), first: place(1), again: place(3) }]);
}

#[test]
fn billions_of_laughs_are_refused() {
    let mut text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [below.as_str(); 10].join(",")));
    }
    assert!(error(&text).contains("more than 200000 values"), "{}", error(&text));
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(200_000), ["*a"; 1000].join(","));
    assert!(error(&long).contains("more than 200000 values"), "{}", error(&long));
}

#[test]
fn limits_of_size_and_depth() {
    assert!(error(&"#".repeat(MAX_BYTES + 1)).contains("more than the limit of 1048576"));
    let nested = |levels: usize| format!("{}x{}", "[".repeat(levels), "]".repeat(levels));
    assert!(load(&nested(MAX_DEPTH)).is_ok());
    assert!(error(&nested(MAX_DEPTH + 1)).contains("deeper than 64 levels"));
    let half = format!("a: &a {}\nb: {}*a{}\n", nested(40), "[".repeat(40), "]".repeat(40));
    assert!(error(&half).contains("deeper than 64 levels"), "{}", error(&half));
    assert!(load(&"[".repeat(100_000)).is_err());
    let indented: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert!(error(&indented).contains("deeper than 64 levels"));
}

#[test]
fn what_is_no_configuration_says_why() {
    for (text, expected) in [
        ("a: [1, 2\nb: 3\n", "this is not valid YAML"),
        ("a: 'x\n", "this is not valid YAML"),
        ("a: b: c\n", "this is not valid YAML"),
        ("a: 1\n\tb: 2\n", "this is not valid YAML"),
        ("a: *nowhere\n", "this is not valid YAML"),
        ("a: &a [*a]\n", "contains the alias itself"),
        ("a: 1\n---\nb: 2\n", "a second document begins here"),
        ("[a, b]: c\n", "cannot be a key"),
        ("? {a: b}\n: c\n", "cannot be a key"),
        ("a: !custom x\n", "this tag has no meaning"),
        ("a: !!binary aGVsbG8=\n", "this tag has no meaning"),
        ("a: !!set {b}\n", "this tag has no meaning"),
        ("a: !!int x\n", "does not have the type"),
        ("a: \u{1}\n", "control character U+0001"),
        ("a: b\0c\n", "control character U+0000"),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn empty_texts_are_null() {
    for text in ["", "\n", "# nothing\n", "---\n", "\u{feff}", "---\n...\n"] {
        assert_eq!(value(text), Value::Null, "{text:?}");
    }
    assert_eq!(json("\u{feff}a: 1\n"), serde_json::json!({"a": 1}));
    assert_eq!(json("a: 1\r\nb: |\r\n  x\r\n  y\r\n"), serde_json::json!({"a": 1, "b": "x\ny\n"}));
}

#[test]
fn json_goes_there_and_back() {
    let text = "{a: [1, -2, 1.5, on, null, x], b: {c: {}}, d: .inf, e: 2001-01-01}";
    let there = json(text);
    assert_eq!(
        there,
        serde_json::json!({"a": [1, -2, 1.5, true, null, "x"], "b": {"c": {}}, "d": ".inf", "e": "2001-01-01"})
    );
    assert_eq!(Node::from_json(&there, &Place::named("here")).to_json(), there);
}

#[test]
fn values_are_not_shown_in_debug_output() {
    let shown = format!("{:?}", load("a: {password: s3cret, n: 77}\n").expect("valid"));
    assert!(shown.contains("password") && !shown.contains("s3cret") && !shown.contains("77"), "{shown}");
}
