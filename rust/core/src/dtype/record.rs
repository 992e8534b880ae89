//! Records: elements of several fields, one after the other without padding.

use super::{DataType, Endian};

/// The fields of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    fields: Vec<Field>,
    nbytes: u64,
}

/// One field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, unlike that of any other field of the record.
    pub name: String,
    /// Type of its elements.
    pub dtype: DataType,
    /// Extents of a field that is an array, in C order; empty for a single element.
    pub shape: Vec<u64>,
    /// Byte order of its elements where the field has one of its own (Zarr v2); None: that of the array.
    pub endian: Option<Endian>,
}

impl Field {
    /// Number of elements, capped.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shape.iter().fold(1, |count, &extent| count.saturating_mul(extent))
    }

    /// Bytes in all, capped.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.count().saturating_mul(self.dtype.item_size() as u64)
    }
}

impl Record {
    /// The record of these fields.
    #[must_use]
    pub fn new(fields: Vec<Field>) -> Self {
        let nbytes = fields.iter().fold(0u64, |nbytes, field| nbytes.saturating_add(field.nbytes()));
        Self { fields, nbytes }
    }

    /// Its fields in the order of their bytes.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Bytes of an element, capped.
    #[must_use]
    pub fn nbytes(&self) -> u64 {
        self.nbytes
    }
}
