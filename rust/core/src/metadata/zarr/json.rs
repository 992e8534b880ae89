//! JSON of a metadata document -> [`Value`] tree, and [`Node`]: a value that knows its path, for messages.
//!
//! RFC 8259, with what metadata needs and general parsers lack: numbers keep their text (a `u64` fill value is exact, a
//! decimal is rounded once, to its own type); a repeated key is an error; Python's bare `NaN`, `Infinity` and
//! `-Infinity` are numbers; members that nobody interprets (`attributes`) are checked but not built; size, depth and
//! number of values are bounded, so that the tree stays small whatever the document says.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::metadata::limits::{MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_NBYTES, MAX_DOCUMENT_VALUES};

/// A JSON value that borrows from its document.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::metadata) enum Value<'d> {
    /// `null`, and every skipped value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// The text of a number; also `NaN`, `Infinity`, `-Infinity`.
    Number(&'d str),
    /// A string, unescaped. Lone surrogates are U+FFFD.
    String(Cow<'d, str>),
    /// A list.
    Array(Vec<Self>),
    /// An object, members in document order, names unique.
    Object(Vec<(Cow<'d, str>, Self)>),
}

/// Parses a document whose top level is an object. Top-level members named in `skip` come out as `Null`.
///
/// # Errors
/// `Limit` past the bounds of a document, `Metadata` (at a byte position) when it is not JSON or repeats a key.
pub(in crate::metadata) fn parse<'d>(document: &'d [u8], skip: &[&str]) -> Result<Value<'d>> {
    if document.len() > MAX_DOCUMENT_NBYTES {
        return Err(Error::limit("bytes of a metadata document", document.len() as u64, MAX_DOCUMENT_NBYTES as u64));
    }
    let text = std::str::from_utf8(document)
        .map_err(|e| Error::metadata(format!("byte {}", e.valid_up_to()), "the document is not UTF-8"))?;
    let mut parser = Parser { text, at: 0, values: 0 };
    if parser.next_token() != Some(b'{') {
        return Err(parser.error("expected a JSON object"));
    }
    let value = parser.object(1, true, skip)?;
    match parser.next_token() {
        None => Ok(value),
        Some(_) => Err(parser.error("text after the end of the JSON object")),
    }
}

struct Parser<'d> {
    text: &'d str,
    /// Position of the next byte; always at a character boundary.
    at: usize,
    /// Values built so far.
    values: usize,
}

impl<'d> Parser<'d> {
    fn error(&self, what: impl Into<String>) -> Error {
        Error::metadata(format!("byte {}", self.at), what)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space; the first byte of what follows.
    fn next_token(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.peek()
    }

    /// Consumes `token` if it is next.
    fn eat(&mut self, token: &str) -> bool {
        let found = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(token.as_bytes()));
        if found {
            self.at += token.len();
        }
        found
    }

    /// The next value, `Null` unless `build`. `depth` containers are open around it.
    fn value(&mut self, depth: usize, build: bool) -> Result<Value<'d>> {
        if build {
            self.values += 1;
            if self.values > MAX_DOCUMENT_VALUES {
                let limit = MAX_DOCUMENT_VALUES as u64;
                return Err(Error::limit("JSON values in a metadata document", limit + 1, limit));
            }
        }
        let first = self.next_token();
        if matches!(first, Some(b'{' | b'[')) && depth >= MAX_DOCUMENT_DEPTH {
            let limit = MAX_DOCUMENT_DEPTH as u64;
            return Err(Error::limit("nesting of a metadata document", limit + 1, limit));
        }
        let value = match first {
            Some(b'{') => self.object(depth + 1, build, &[])?,
            Some(b'[') => self.array(depth + 1, build)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ if self.eat("true") => Value::Bool(true),
            _ if self.eat("false") => Value::Bool(false),
            _ if self.eat("null") => Value::Null,
            _ if self.eat("NaN") => Value::Number("NaN"),
            _ if self.eat("Infinity") => Value::Number("Infinity"),
            Some(_) => return Err(self.error("expected a JSON value")),
            None => return Err(self.error("the document ends inside a JSON value")),
        };
        Ok(if build { value } else { Value::Null })
    }

    /// An object whose `{` is next. `depth` counts it.
    fn object(&mut self, depth: usize, build: bool, skip: &[&str]) -> Result<Value<'d>> {
        self.at += 1;
        let mut members = Vec::new();
        if self.next_token() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            if self.next_token() != Some(b'"') {
                return Err(self.error("expected a quoted name"));
            }
            let name = self.string()?;
            if self.next_token() != Some(b':') {
                return Err(self.error("expected `:`"));
            }
            self.at += 1;
            let value = self.value(depth, build && !skip.contains(&&*name))?;
            if build {
                members.push((name, value));
            }
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error("expected `,` or `}`")),
            }
        }
        self.at += 1;
        let mut names = BTreeSet::new();
        match members.iter().find(|(name, _)| !names.insert(&**name)) {
            Some((name, _)) => {
                Err(self.error(format!("the object that ends here repeats the name {:?}", shorten(name))))
            }
            None => Ok(Value::Object(members)),
        }
    }

    /// A list whose `[` is next. `depth` counts it.
    fn array(&mut self, depth: usize, build: bool) -> Result<Value<'d>> {
        self.at += 1;
        let mut items = Vec::new();
        if self.next_token() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            let item = self.value(depth, build)?;
            if build {
                items.push(item);
            }
            match self.next_token() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("expected `,` or `]`")),
            }
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    /// A string whose opening quote is next.
    fn string(&mut self) -> Result<Cow<'d, str>> {
        self.at += 1;
        let mut unescaped: Option<String> = None;
        loop {
            let start = self.at;
            while matches!(self.peek(), Some(byte) if byte >= 0x20 && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            let run = self.text.get(start..self.at).unwrap_or_default();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match unescaped {
                        None => Cow::Borrowed(run),
                        Some(text) => Cow::Owned(text + run),
                    });
                }
                Some(b'\\') => {
                    self.at += 1;
                    let character = self.escape()?;
                    let text = unescaped.get_or_insert_default();
                    text.push_str(run);
                    text.push(character);
                }
                Some(_) => return Err(self.error("control character in a string")),
                None => return Err(self.error("the document ends inside a string")),
            }
        }
    }

    /// The character meant by the escape whose backslash has been read.
    fn escape(&mut self) -> Result<char> {
        let kind = self.peek();
        self.at += usize::from(kind.is_some_and(|byte| byte.is_ascii()));
        Ok(match kind {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hex4()?;
                let mut code = high;
                let pair_start = self.at;
                if (0xd800..0xdc00).contains(&high) && self.eat("\\u") {
                    let low = self.hex4()?;
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    } else {
                        self.at = pair_start;
                    }
                }
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.error("unknown escape in a string")),
        })
    }

    fn hex4(&mut self) -> Result<u32> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        self.at += if code.is_some() { 4 } else { 0 };
        code.ok_or_else(|| self.error("`\\u` without four hexadecimal digits"))
    }

    /// A number whose `-` or first digit is next.
    fn number(&mut self) -> Result<Value<'d>> {
        let start = self.at;
        let negative = self.eat("-");
        if negative && self.eat("Infinity") {
            return Ok(Value::Number("-Infinity"));
        }
        let whole = self.digits();
        let mut legal = whole == 1 || (whole > 1 && self.text.as_bytes().get(self.at - whole) != Some(&b'0'));
        if self.eat(".") {
            legal &= self.digits() > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let _sign = self.eat("+") || self.eat("-");
            legal &= self.digits() > 0;
        }
        match self.text.get(start..self.at) {
            Some(text) if legal => Ok(Value::Number(text)),
            _ => Err(self.error("malformed number")),
        }
    }

    /// Consumes decimal digits; how many.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }
}

/// A value and its path in the document, such as `codecs[1].configuration`.
#[derive(Debug, Clone)]
pub(in crate::metadata) struct Node<'v> {
    pub(in crate::metadata) value: &'v Value<'v>,
    pub(in crate::metadata) at: String,
}

impl<'v> Node<'v> {
    /// The top of a document.
    pub(in crate::metadata) fn root(value: &'v Value<'v>) -> Self {
        Self { value, at: String::new() }
    }

    /// A `Metadata` error here.
    pub(in crate::metadata) fn error(&self, what: impl Into<String>) -> Error {
        Error::metadata(self.at.clone(), what)
    }

    /// A `Metadata` error here: not what was expected.
    pub(in crate::metadata) fn expected(&self, what: &str) -> Error {
        let found = match self.value {
            Value::Null => "null".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(text) => shorten(text),
            Value::String(text) => format!("{:?}", shorten(text)),
            Value::Array(items) => format!("a list of {}", items.len()),
            Value::Object(_) => "an object".into(),
        };
        self.error(format!("expected {what}, found {found}"))
    }

    fn child(&self, value: &'v Value<'v>, name: &str) -> Self {
        let name = shorten(name);
        let at = if self.at.is_empty() { name } else { format!("{}.{name}", self.at) };
        Self { value, at }
    }

    /// Members of an object, in document order.
    pub(in crate::metadata) fn members(&self) -> Result<impl Iterator<Item = (&'v str, Self)>> {
        match self.value {
            Value::Object(members) => Ok(members.iter().map(|(name, value)| (&**name, self.child(value, name)))),
            _ => Err(self.expected("an object")),
        }
    }

    /// Member of an object; None when it is absent or this is not an object.
    pub(in crate::metadata) fn get(&self, name: &str) -> Option<Self> {
        match self.value {
            Value::Object(members) => {
                members.iter().find(|(found, _)| found == name).map(|(_, value)| self.child(value, name))
            }
            _ => None,
        }
    }

    /// Member of an object that must be there.
    pub(in crate::metadata) fn require(&self, name: &str) -> Result<Self> {
        if !matches!(self.value, Value::Object(_)) {
            return Err(self.expected("an object"));
        }
        self.get(name).ok_or_else(|| self.child(&Value::Null, name).error("missing"))
    }

    /// Items of a list of at most `max` items.
    pub(in crate::metadata) fn items(&self, max: usize) -> Result<impl Iterator<Item = Self>> {
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

    pub(in crate::metadata) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(in crate::metadata) fn str(&self) -> Result<&'v str> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => Err(self.expected("a string")),
        }
    }

    /// A string that may be quoted in messages: a name of something.
    pub(in crate::metadata) fn short_str(&self) -> Result<&'v str> {
        self.str().ok().filter(|text| text.len() <= 128).ok_or_else(|| self.expected("a short string"))
    }

    pub(in crate::metadata) fn bool(&self) -> Result<bool> {
        match self.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// An integer without fraction or exponent in `min..=max`.
    pub(in crate::metadata) fn integer(&self, min: i64, max: u64) -> Result<i128> {
        match self.value {
            Value::Number(text) => text.parse().ok().filter(|n| (i128::from(min)..=i128::from(max)).contains(n)),
            _ => None,
        }
        .ok_or_else(|| match (min, max) {
            (0, u64::MAX) => self.expected("a non-negative integer"),
            (1, u64::MAX) => self.expected("a positive integer"),
            _ => self.expected(&format!("an integer from {min} to {max}")),
        })
    }

    /// A non-negative integer of up to 64 bits.
    pub(in crate::metadata) fn u64(&self) -> Result<u64> {
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

    use super::{Value, parse};

    /// The same value as `serde_json` holds it.
    fn as_serde(value: &Value<'_>) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            // serde_json may read a decimal one unit off in the last place.
            Value::Number(text) if text.contains(['.', 'e', 'E']) => text.parse::<f64>().unwrap().into(),
            Value::Number(text) => serde_json::from_str(text).unwrap(),
            Value::String(text) => (&**text).into(),
            Value::Array(items) => items.iter().map(as_serde).collect(),
            Value::Object(members) => members.iter().map(|(name, value)| (name.to_string(), as_serde(value))).collect(),
        }
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e15f64..1e15).prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
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
        fn reads_what_serde_json_writes(value in any_json(), pretty in any::<bool>()) {
            let document = serde_json::json!({"value": value});
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) }.unwrap();
            prop_assert_eq!(as_serde(&parse(text.as_bytes(), &[]).unwrap()), document);
            prop_assert_eq!(parse(text.as_bytes(), &["value"]).unwrap(), Value::Object(vec![("value".into(), Value::Null)]));
        }

        /// Skipped values are checked as strictly as others.
        #[test]
        fn accepts_what_serde_json_accepts(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..8)) {
            let text = format!("{{\"value\": {}}}", pieces.concat());
            let expected = serde_json::from_str::<serde_json::Value>(&text);
            let found = parse(text.as_bytes(), &[]);
            prop_assert_eq!(parse(text.as_bytes(), &["value"]).is_ok(), expected.is_ok(), "{}", &text);
            match (found, expected) {
                (Ok(found), Ok(expected)) => prop_assert_eq!(as_serde(&found), expected),
                (Err(error), Ok(_)) => prop_assert!(error.to_string().contains("repeats"), "{} in {}", error, text),
                (found, Err(_)) => prop_assert!(found.is_err(), "{}", text),
            }
        }
    }

    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        " ",
        "\n",
        "\"a\"",
        "\"b\":",
        "\"a\":1",
        "[1,2]",
        "{}",
        "0",
        "1",
        "-",
        ".",
        "5",
        "e",
        "E+",
        "e1",
        "true",
        "false",
        "null",
        "nul",
        "\\n",
        "\\u00e9",
        "\\ud83d\\ude00",
        "é",
        "\t",
        "+",
        "\u{1}",
        "/",
    ];
}
