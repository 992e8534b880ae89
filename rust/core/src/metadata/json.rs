//! JSON of a metadata document -> [`Value`] tree, and [`Node`]: a value that knows its path, for messages.
//!
//! `serde_json` parses; what is added here is what metadata needs beyond RFC 8259. A repeated name is an error. Members
//! that nobody interprets (`attributes`) are checked but not built. Size, depth and number of values are bounded, so
//! that the tree of a hostile document stays within some 100 MiB. Python's bare `NaN`, `Infinity` and `-Infinity` are
//! read as the strings that Zarr writes for them.
//!
//! Integers of 64 bits are exact; any other number is a double, correctly rounded.

use std::fmt;

use serde_core::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::metadata::limits::{MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_NBYTES, MAX_DOCUMENT_VALUES};

/// Our error unless another is named: the parser asks for its own.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Parses a document whose top level is an object. Top-level members named in `skip` come out as `Null`.
///
/// # Errors
/// `Limit` past the bounds of a document, `Metadata` (at a line and column) when it is not JSON or repeats a name.
pub(super) fn parse(document: &[u8], skip: &[&str]) -> Result<Value> {
    if document.len() > MAX_DOCUMENT_NBYTES {
        return Err(Error::limit("bytes of a metadata document", document.len() as u64, MAX_DOCUMENT_NBYTES as u64));
    }
    let text = std::str::from_utf8(document)
        .map_err(|e| Error::metadata(format!("byte {}", e.valid_up_to()), "the document is not UTF-8"))?;
    let mut parsed = build(text, skip);
    if parsed.is_err() && (text.contains("NaN") || text.contains("Infinity")) {
        parsed = build(&quote_non_finite(text), skip);
    }
    match parsed? {
        value @ Value::Object(_) => Ok(value),
        _ => Err(Error::metadata("", "expected a JSON object")),
    }
}

fn build(text: &str, skip: &[&str]) -> Result<Value> {
    let mut limits = Limits { values: 0, exceeded: None };
    let mut parser = serde_json::Deserializer::from_str(text);
    let seed = Tree { limits: &mut limits, depth: 0, skip };
    let built = seed.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    built.map_err(|error| match limits.exceeded {
        Some(error) => error,
        None if error.is_data() => Error::metadata("", error.to_string()),
        None => Error::metadata("", format!("unreadable JSON: {error}")),
    })
}

/// Puts quotes around the non-finite numbers outside of strings.
fn quote_non_finite(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    let mut inside = false;
    for piece in text.split('"') {
        if inside {
            quoted.push_str(piece);
            // An odd number of backslashes escapes the quote that follows.
            inside = piece.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1;
        } else {
            if piece.contains(['N', 'I']) {
                let piece = piece.replace("NaN", "\"NaN\"").replace("Infinity", "\"Infinity\"");
                quoted.push_str(&piece.replace("-\"Infinity\"", "\"-Infinity\""));
            } else {
                quoted.push_str(piece);
            }
            inside = true;
        }
        quoted.push('"');
    }
    quoted.pop();
    quoted
}

struct Limits {
    /// Values built so far.
    values: usize,
    /// The limit that ended the parse; the parser's own error has only a text.
    exceeded: Option<Error>,
}

/// Builds one value, around which `depth` containers are open.
struct Tree<'l> {
    limits: &'l mut Limits,
    depth: usize,
    skip: &'l [&'l str],
}

impl Tree<'_> {
    /// What builds a value inside this one.
    fn inner(&mut self) -> Tree<'_> {
        Tree { limits: self.limits, depth: self.depth + 1, skip: &[] }
    }

    fn check<E: serde_core::de::Error>(&mut self, what: &str, needed: usize, limit: usize) -> Result<(), E> {
        if needed <= limit {
            return Ok(());
        }
        self.limits.exceeded = Some(Error::limit(what, needed as u64, limit as u64));
        Err(E::custom(what))
    }

    fn check_depth<E: serde_core::de::Error>(&mut self) -> Result<(), E> {
        self.check("nesting of a metadata document", self.depth + 1, MAX_DOCUMENT_DEPTH)
    }
}

impl<'d> DeserializeSeed<'d> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'d>>(mut self, parser: D) -> Result<Value, D::Error> {
        self.limits.values += 1;
        self.check("JSON values in a metadata document", self.limits.values, MAX_DOCUMENT_VALUES)?;
        parser.deserialize_any(self)
    }
}

impl<'d> Visitor<'d> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'d>>(mut self, mut list: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.inner())? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'d>>(mut self, mut object: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut members = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format!("the object repeats the name {:?}", shorten(&name))));
            }
            let value = if self.skip.contains(&&*name) {
                object.next_value::<IgnoredAny>()?;
                Value::Null
            } else {
                object.next_value_seed(self.inner())?
            };
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

/// A value and its path in the document, such as `codecs[1].configuration`.
#[derive(Debug, Clone)]
pub(super) struct Node<'v> {
    pub(super) value: &'v Value,
    pub(super) at: String,
}

impl<'v> Node<'v> {
    /// The top of a document.
    pub(super) fn root(value: &'v Value) -> Self {
        Self { value, at: String::new() }
    }

    /// A `Metadata` error here.
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::metadata(self.at.clone(), what)
    }

    /// A `Metadata` error here: not what was expected.
    pub(super) fn expected(&self, what: &str) -> Error {
        let found = match self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => format!("{:?}", shorten(text)),
            Value::Array(items) => format!("a list of {}", items.len()),
            Value::Object(_) => "an object".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }

    fn child(&self, value: &'v Value, name: &str) -> Self {
        let name = shorten(name);
        let at = if self.at.is_empty() { name } else { format!("{}.{name}", self.at) };
        Self { value, at }
    }

    /// Members of an object, sorted by name.
    pub(super) fn members(&self) -> Result<impl Iterator<Item = (&'v str, Self)>> {
        match self.value {
            Value::Object(members) => Ok(members.iter().map(|(name, value)| (name.as_str(), self.child(value, name)))),
            _ => Err(self.expected("an object")),
        }
    }

    /// Member of an object; None when it is absent or this is not an object.
    pub(super) fn get(&self, name: &str) -> Option<Self> {
        self.value.get(name).map(|value| self.child(value, name))
    }

    /// Member of an object that must be there.
    pub(super) fn require(&self, name: &str) -> Result<Self> {
        if !matches!(self.value, Value::Object(_)) {
            return Err(self.expected("an object"));
        }
        self.get(name).ok_or_else(|| self.child(&Value::Null, name).error("missing"))
    }

    /// Items of a list of at most `max` items.
    pub(super) fn items(&self, max: usize) -> Result<impl Iterator<Item = Self>> {
        match self.value {
            Value::Array(items) if items.len() > max => {
                Err(Error::limit(format!("{}: number of items", self.at), items.len() as u64, max as u64))
            }
            Value::Array(items) => {
                Ok(items.iter().enumerate().map(|(i, value)| Self { value, at: format!("{}[{i}]", self.at) }))
            }
            _ => Err(self.expected("a list")),
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn str(&self) -> Result<&'v str> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// A string that may be quoted in messages: a name of something.
    pub(super) fn short_str(&self) -> Result<&'v str> {
        self.str().ok().filter(|text| text.len() <= 128).ok_or_else(|| self.expected("a short string"))
    }

    pub(super) fn bool(&self) -> Result<bool> {
        match self.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// An integer without fraction or exponent in `min..=max`.
    pub(super) fn integer(&self, min: i64, max: u64) -> Result<i128> {
        match self.value {
            Value::Number(number) => number.as_i128().filter(|n| (i128::from(min)..=i128::from(max)).contains(n)),
            _ => None,
        }
        .ok_or_else(|| match (min, max) {
            (0, u64::MAX) => self.expected("a non-negative integer"),
            (1, u64::MAX) => self.expected("a positive integer"),
            _ => self.expected(&format!("an integer from {min} to {max}")),
        })
    }

    /// A non-negative integer of up to 64 bits.
    pub(super) fn u64(&self) -> Result<u64> {
        self.integer(0, u64::MAX).map(|n| n as u64)
    }
}

/// The beginning of a text from a document, for a message.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{parse, quote_non_finite};

    #[test]
    fn non_finite_numbers_become_strings_and_strings_stay() {
        let text = r#"{"NaN": [NaN,-Infinity, Infinity], "a\"NaN\\": -Infinity, "b": "-Infinity \" NaN", "c\\": NaN}"#;
        let expected = json!({
            "NaN": ["NaN", "-Infinity", "Infinity"], "a\"NaN\\": "-Infinity", "b": "-Infinity \" NaN", "c\\": "NaN"
        });
        assert_eq!(parse(text.as_bytes(), &[]).unwrap(), expected);
        for broken in
            ["{\"a\": NaNs}", "{\"a\": - NaN}", "{\"a\": -NaN}", "{\"a\": +Infinity}", "{\"a\": \"NaN}", "{NaN"]
        {
            assert!(parse(broken.as_bytes(), &[]).is_err(), "{broken}");
        }
        for text in ["", "\"", "\"\\\"", "\"NaN", "\\\"NaN\"", "{\"a\": 1}"] {
            assert_eq!(quote_non_finite(text), text);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            prop::num::f64::NORMAL.prop_map(Into::into),
            prop_oneof![".{0,12}", "(NaN|-?Infinity|\\\\|\"){0,4}"].prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,3}", inner, 0..6)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn values_come_out_as_written(value in any_json(), pretty in any::<bool>()) {
            let document = json!({"value": value, "after": 1});
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            prop_assert_eq!(parse(text.as_bytes(), &[]).unwrap(), document);
            prop_assert_eq!(quote_non_finite(&text), text.clone());
            prop_assert_eq!(parse(text.as_bytes(), &["value"]).unwrap(), json!({"value": null, "after": 1}));
        }
    }
}
