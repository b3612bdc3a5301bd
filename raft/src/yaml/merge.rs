//! Several texts as one tree: a later one wins, key by key.

use std::sync::Arc;

use super::{Map, Node, Place, Value};

impl Map {
    /// Lays another map over this one: maps are merged at every depth, a null removes the key, anything else replaces.
    pub fn merge(&mut self, other: Self) {
        for entry in other.entries {
            if entry.value.value == Value::Null {
                self.entries.retain(|known| known.key != entry.key);
                continue;
            }
            match (self.entries.iter_mut().find(|known| known.key == entry.key), entry.value) {
                (
                    Some(super::Entry { value: Node { value: Value::Map(known), .. }, .. }),
                    Node { value: Value::Map(change), .. },
                ) => known.merge(change),
                (_, value) => self.set(&entry.key, entry.place, value),
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(at).value)
    }
}

impl Node {
    /// Gives every part of the tree the same place.
    pub fn name_all(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.name_all(place)),
            Value::Map(map) => {
                for entry in &mut map.entries {
                    entry.place = place.clone();
                    entry.value.name_all(place);
                }
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }

    /// Puts the name of its text before every place: for trees of several texts.
    pub fn name_text(&mut self, text: &str) {
        let named = |place: &Place| match place {
            Place::Text { line, column } => Place::Named(Arc::from(format!("{text}:{line}:{column}"))),
            Place::Named(name) => Place::Named(Arc::clone(name)),
        };
        self.place = named(&self.place);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.name_text(text)),
            Value::Map(map) => {
                for entry in &mut map.entries {
                    entry.place = named(&entry.place);
                    entry.value.name_text(text);
                }
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;

    fn map(text: &str) -> Map {
        let root = load(text).expect("yaml").root;
        let Value::Map(map) = root.value else { panic!("{root:?}") };
        map
    }

    #[test]
    fn a_later_text_wins_and_null_removes() {
        let mut merged = map("a: {x: 1, y: [1]}\nb: 2\nc: {z: 1}\n");
        merged.merge(map("a: {x: null, y: [2], w: {v: null, u: 1}}\nb: {q: 1}\nc: null\nd: null\n"));
        let node = Node { place: Place::named("test"), value: Value::Map(merged), source: String::new() };
        // As in Patroni, a map under a new key is taken as it is.
        let expected = serde_json::json!({"a": {"y": [2], "w": {"v": null, "u": 1}}, "b": {"q": 1}});
        assert_eq!(node.to_json(), expected);
    }

    #[test]
    fn places_name_their_text() {
        let mut root = load("a:\n- b: 1\n").expect("yaml").root;
        root.name_text("10-first.yml");
        assert!(format!("{root:?}").contains("10-first.yml:2:"), "{root:?}");
    }
}
