//! JSON in which each object has each key once.
//!
//! JSON lets a key stand twice, and readers silently take one of the two: whoever sends that meant something else.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use pgherd_raft::config::shown_key;

/// Reads a text.
///
/// # Errors
/// It is no JSON, or has a key twice in one object; a sentence with the path.
pub fn strict_json(text: &[u8]) -> Result<Value, String> {
    let path = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict(&path).deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// A value whose path is known.
#[derive(Clone, Copy)]
struct Strict<'p>(&'p RefCell<Vec<String>>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.0.borrow_mut().push(shown_key(&key));
            if object.contains_key(&key) {
                let path = self.0.borrow().join(".");
                return Err(A::Error::custom(format!("{path} is given twice")));
            }
            let value = entries.next_value_seed(self)?;
            object.insert(key, value);
            self.0.borrow_mut().pop();
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_is_named_with_its_path() {
        let text = r#"{"a": {"b": [1, {"c": 1, "c": 2}]}, "a2": 1}"#;
        let error = strict_json(text.as_bytes()).expect_err("twice");
        assert!(error.starts_with("a.b.c is given twice"), "{error}");
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let text = r#"{"a":{"b":[1,-1,1.5,18446744073709551615,"x\ny",true,null,{}]},"c":{"b":1}}"#;
        let value = strict_json(text.as_bytes()).expect("json");
        assert_eq!(value, serde_json::from_str::<Value>(text).expect("json"));
        assert_eq!(value.to_string(), text, "in the same order");
        for wrong in ["", "{", "{} x", "{\"a\":}", "nul", "[1,]"] {
            assert!(strict_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let deep = "[".repeat(1000);
        assert!(strict_json(deep.as_bytes()).is_err(), "its depth is limited");
    }
}
