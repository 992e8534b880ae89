//! The one error of the core: what went wrong (`ErrorKind`, named fields) and where (`Place`).
//!
//! Layers below do not know the object they work on; each layer above adds what it knows with
//! [`Error::in_chunk`], [`Error::in_range`] and [`Error::in_object`]. The binding maps the kind to a Python class
//! through one table ([`ErrorKind::class_name`]).

use std::borrow::Cow;
use std::fmt;

use crate::subset::ByteRange;

/// Result of everything in the core that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Foreign data ends in one of these, never in a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A document breaks the rules of its format. `at` is the path inside the document, such as `codecs[1].configuration`.
    Metadata {
        /// Path inside the document.
        at: String,
        /// What is wrong there.
        what: String,
    },
    /// Legal, but not something this version reads or writes.
    Unsupported {
        /// What is not supported.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// A selection that does not fit the array.
    Selection {
        /// What does not fit.
        what: String,
    },
    /// A shard's index is broken, or an entry of it points nowhere.
    ShardIndex {
        /// What is broken.
        what: String,
    },
    /// Encoded bytes that their codec refuses.
    Codec {
        /// Name of the codec as the format spells it.
        codec: Cow<'static, str>,
        /// What it refused.
        what: String,
    },
    /// A stored checksum differs from the computed one.
    Checksum {
        /// Name of the checksum codec.
        codec: &'static str,
        /// Checksum in the file.
        stored: u64,
        /// Checksum of the bytes.
        computed: u64,
    },
    /// More memory, depth or size than the limits allow.
    Limit {
        /// What was asked for.
        what: String,
        /// How much it needs (bytes, unless `what` says otherwise).
        needed: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// An object that must exist does not.
    NotFound {
        /// What is missing.
        what: String,
    },
    /// The store refuses access.
    PermissionDenied {
        /// What was refused.
        what: String,
    },
    /// The store failed in another way.
    Store {
        /// What the store said.
        what: String,
    },
    /// An object was replaced or changed while it was read.
    ObjectChanged {
        /// What changed.
        what: String,
    },
    /// A request failed, after all attempts, in the words of the transport.
    Transport {
        /// In which way.
        class: TransportClass,
        /// What happened.
        what: String,
        /// What to do about it.
        hint: String,
        /// The last HTTP status.
        status: Option<u16>,
        /// Number of attempts.
        attempts: u32,
    },
    /// A bug of ours.
    Internal {
        /// What should not have happened.
        what: String,
    },
}

/// The ways in which a request can fail that only a transport knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportClass {
    /// None of the others.
    Store,
    /// The store refuses access.
    PermissionDenied,
    /// Credentials are missing, expired or refused.
    Credentials,
    /// The store did not answer in time.
    Timeout,
    /// The server answered a range request with something else.
    RangeNotHonoured,
    /// It failed as often as is allowed.
    RetriesExhausted,
    /// The object is another one than was asked for.
    ObjectChanged,
    /// The object is larger than it may be.
    Limit,
    /// Something of the parent process that cannot be used after a fork.
    ForkSafety,
    /// The transport cannot do what was asked.
    Unsupported,
    /// What holds the objects is not there any more.
    NotFound,
    /// What holds the objects is damaged.
    Data,
    /// An object has another checksum than what holds it says.
    Checksum,
    /// A bug of the transport.
    Internal,
}

impl TransportClass {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Store,
        Self::PermissionDenied,
        Self::Credentials,
        Self::Timeout,
        Self::RangeNotHonoured,
        Self::RetriesExhausted,
        Self::ObjectChanged,
        Self::Limit,
        Self::ForkSafety,
        Self::Unsupported,
        Self::NotFound,
        Self::Data,
        Self::Checksum,
        Self::Internal,
    ];

    /// Name of the Python exception class.
    #[must_use]
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Store => "StoreError",
            Self::PermissionDenied => "PermissionDeniedError",
            Self::Credentials => "CredentialsError",
            Self::Timeout => "StoreTimeoutError",
            Self::RangeNotHonoured => "RangeNotHonouredError",
            Self::RetriesExhausted => "RetriesExhaustedError",
            Self::ObjectChanged => "ObjectChangedError",
            Self::Limit => "LimitExceededError",
            Self::ForkSafety => "ForkSafetyError",
            Self::Unsupported => "UnsupportedError",
            Self::NotFound => "NotFoundError",
            Self::Data => "DataError",
            Self::Checksum => "ChecksumError",
            Self::Internal => "InternalError",
        }
    }

    /// The way whose Python exception class has this name.
    #[must_use]
    pub fn of_class(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.class_name() == name)
    }
}

impl ErrorKind {
    /// Name of the Python exception class, also the value of `kind`.
    #[must_use]
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "MetadataError",
            Self::Unsupported { .. } => "UnsupportedError",
            Self::Selection { .. } => "SelectionError",
            Self::ShardIndex { .. } => "ShardIndexError",
            Self::Codec { .. } => "CodecError",
            Self::Checksum { .. } => "ChecksumError",
            Self::Limit { .. } => "LimitExceededError",
            Self::NotFound { .. } => "NotFoundError",
            Self::PermissionDenied { .. } => "PermissionDeniedError",
            Self::Store { .. } => "StoreError",
            Self::ObjectChanged { .. } => "ObjectChangedError",
            Self::Transport { class, .. } => class.class_name(),
            Self::Internal { .. } => "InternalError",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Metadata { at, what } if at.is_empty() => f.write_str(what),
            Self::Metadata { at, what } => write!(f, "{at}: {what}"),
            Self::Unsupported { what, .. }
            | Self::Selection { what }
            | Self::ShardIndex { what }
            | Self::NotFound { what }
            | Self::PermissionDenied { what }
            | Self::Store { what }
            | Self::ObjectChanged { what }
            | Self::Transport { what, .. }
            | Self::Internal { what } => f.write_str(what),
            Self::Codec { codec, what } => write!(f, "{codec}: {what}"),
            Self::Checksum { codec, stored, computed } => {
                write!(f, "{codec}: stored checksum {stored:#010x}, computed {computed:#010x}")
            }
            Self::Limit { what, needed, limit } => write!(f, "{what}: needs {needed}, the limit is {limit}"),
        }
    }
}

/// Where it went wrong; each part is filled in by the layer that knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Key or path of the stored object.
    pub key: Option<String>,
    /// Bytes of the object.
    pub byte_range: Option<ByteRange>,
    /// Grid coordinates of the chunk in the whole array.
    pub chunk: Option<Vec<u64>>,
}

/// What went wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<(ErrorKind, Place)>);

impl Error {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.0
    }

    /// Where it went wrong.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.1
    }

    /// Names the object, unless a lower layer did.
    #[must_use]
    pub fn in_object(mut self, key: &str) -> Self {
        self.0.1.key.get_or_insert_with(|| key.to_owned());
        self
    }

    /// Names the bytes of the object, unless a lower layer did.
    #[must_use]
    pub fn in_range(mut self, range: ByteRange) -> Self {
        self.0.1.byte_range.get_or_insert(range);
        self
    }

    /// Names the chunk by its grid coordinates, unless a lower layer did.
    #[must_use]
    pub fn in_chunk(mut self, chunk: &[u64]) -> Self {
        self.0.1.chunk.get_or_insert_with(|| chunk.to_vec());
        self
    }

    /// A rule of the format is broken at `at`.
    pub fn metadata(at: impl Into<String>, what: impl Into<String>) -> Self {
        ErrorKind::Metadata { at: at.into(), what: what.into() }.into()
    }

    /// Legal but not supported.
    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Self {
        ErrorKind::Unsupported { what: what.into(), hint: hint.into() }.into()
    }

    /// A codec refuses its bytes.
    pub fn codec(codec: impl Into<Cow<'static, str>>, what: impl Into<String>) -> Self {
        ErrorKind::Codec { codec: codec.into(), what: what.into() }.into()
    }

    /// A shard index is broken.
    pub fn shard_index(what: impl Into<String>) -> Self {
        ErrorKind::ShardIndex { what: what.into() }.into()
    }

    /// A limit is exceeded.
    pub fn limit(what: impl Into<String>, needed: u64, limit: u64) -> Self {
        ErrorKind::Limit { what: what.into(), needed, limit }.into()
    }

    /// A bug of ours.
    pub fn internal(what: impl Into<String>) -> Self {
        ErrorKind::Internal { what: what.into() }.into()
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Box::new((kind, Place::default())))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { key, byte_range, chunk } = self.place();
        if let Some(key) = key {
            write!(f, "{key}: ")?;
        }
        self.kind().fmt(f)?;
        if let Some(chunk) = chunk {
            write!(f, " (chunk {chunk:?})")?;
        }
        if let Some(range) = byte_range {
            write!(f, " (bytes {}..{})", range.start, range.end)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
