use std::borrow::Cow;
use std::io::{Read, Write};

use half::f16;

use super::half_rows;
use crate::{Error, ErrorKind};

/// Vectors in rows, `[rows, dims]`, f32 or f16; every value is finite.
///
/// ```
/// use eval_core::retrieval::EmbeddingStore;
/// let store = EmbeddingStore::from_f32(vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3)?;
/// assert_eq!((store.rows(), store.dims()), (2, 3));
/// let rounded = store.to_f16()?; // half the size; 0.1 is now 0.0999756
/// assert!((rounded.row(0)[0] - 0.1).abs() < 1e-4);
/// let error = EmbeddingStore::from_f32(vec![1.0, f32::NAN], 1).unwrap_err();
/// assert!(error.to_string().starts_with("embedding row 1 holds NaN in column 0"));
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingStore {
    values: Values,
    rows: usize,
    dims: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl EmbeddingStore {
    /// From `[rows, dims]` values, row after row.
    ///
    /// # Errors
    /// No dimensions, a part of a row, more rows than `u32::MAX`, or a value that is not finite.
    pub fn from_f32(values: Vec<f32>, dims: usize) -> Result<Self, Error> {
        let rows = checked_rows(values.len(), dims)?;
        check_finite(&values, dims)?;
        Ok(Self {
            values: Values::F32(values),
            rows,
            dims,
        })
    }

    /// From `[rows, dims]` values, row after row.
    ///
    /// # Errors
    /// Those of [`EmbeddingStore::from_f32`].
    pub fn from_f16(values: Vec<f16>, dims: usize) -> Result<Self, Error> {
        let rows = checked_rows(values.len(), dims)?;
        if !half_rows::all_finite(&values) {
            check_finite(&values, dims)?;
        }
        Ok(Self {
            values: Values::F16(values),
            rows,
            dims,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of values in a row.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Whether the values are stored as f16.
    pub fn is_f16(&self) -> bool {
        matches!(self.values, Values::F16(_))
    }

    /// One row as f32, which holds every f16 exactly.
    ///
    /// # Panics
    /// When `row` is not below [`rows`](Self::rows), as indexing a slice does.
    pub fn row(&self, row: usize) -> Cow<'_, [f32]> {
        let range = row * self.dims..(row + 1) * self.dims;
        match &self.values {
            Values::F32(values) => Cow::Borrowed(&values[range]),
            Values::F16(values) => {
                let mut wide = vec![0.0; self.dims];
                half_rows::widen(&values[range], &mut wide);
                Cow::Owned(wide)
            }
        }
    }

    /// The same vectors rounded to the nearest f16, ties to even: what a report records.
    ///
    /// # Errors
    /// [`ErrorKind::BeyondF16`] for a value above 65,504 in size.
    pub fn to_f16(&self) -> Result<Self, Error> {
        let Values::F32(values) = &self.values else {
            return Ok(self.clone());
        };
        let rounded: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
        if let Some(place) = rounded.iter().position(|value| !value.is_finite()) {
            let (row, column) = (place / self.dims, place % self.dims);
            return Err(ErrorKind::BeyondF16 {
                row,
                column,
                value: values[place],
            }
            .into());
        }
        Ok(Self {
            values: Values::F16(rounded),
            rows: self.rows,
            dims: self.dims,
        })
    }

    /// Reads `rows · dims` f16 values, little-endian, which must end there.
    ///
    /// # Errors
    /// [`ErrorKind::LengthsDiffer`] when there are more or fewer bytes, and those of [`EmbeddingStore::from_f16`].
    pub fn read_f16(mut reader: impl Read, rows: usize, dims: usize) -> Result<Self, Error> {
        let mut parts = F16Parts::new(rows, dims);
        let mut part = vec![0; 1 << 16];
        loop {
            match reader.read(&mut part) {
                Ok(0) => return parts.finish(),
                Ok(length) => parts.push(&part[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes the values as f16, little-endian, row after row, rounding those of an f32 store.
    ///
    /// # Errors
    /// Those of [`EmbeddingStore::to_f16`], and of the writer.
    pub fn write_f16(&self, mut writer: impl Write) -> Result<(), Error> {
        match &self.values {
            Values::F16(values) => {
                for row in values.chunks(self.dims) {
                    let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
                    writer.write_all(&bytes)?;
                }
                Ok(())
            }
            Values::F32(_) => self.to_f16()?.write_f16(writer),
        }
    }

    /// Copies rows `first..first + count` to `padded`, `[count, stride]`; what is beyond `dims` stays as it is.
    pub(super) fn unpack(&self, first: usize, count: usize, stride: usize, padded: &mut [f32]) {
        for (row, into) in (first..first + count).zip(padded.chunks_exact_mut(stride)) {
            let range = row * self.dims..(row + 1) * self.dims;
            match &self.values {
                Values::F32(values) => into[..self.dims].copy_from_slice(&values[range]),
                Values::F16(values) => half_rows::widen(&values[range], into),
            }
        }
    }

    /// Rows `first..first + count` where they are stored as f16.
    pub(super) fn as_f16(&self, first: usize, count: usize) -> Option<&[f16]> {
        match &self.values {
            Values::F16(values) => Some(&values[first * self.dims..(first + count) * self.dims]),
            Values::F32(_) => None,
        }
    }

    /// Rows `first..first + count` where they already lie as the kernel wants them.
    pub(super) fn as_unpacked(&self, first: usize, count: usize, stride: usize) -> Option<&[f32]> {
        match &self.values {
            Values::F32(values) if stride == self.dims => Some(&values[first * stride..(first + count) * stride]),
            _ => None,
        }
    }
}

/// Vectors of f16 that come in parts, as from a network: none of them is held twice.
///
/// ```
/// use eval_core::retrieval::F16Parts;
/// let mut parts = F16Parts::new(1, 2);
/// parts.push(&[0x00, 0x3c, 0x00]); // parts may end within a value
/// parts.push(&[0xc1]);
/// assert_eq!(parts.finish()?.row(0)[..], [1.0, -2.5]);
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct F16Parts {
    values: Vec<f16>,
    /// The low byte of a value whose high byte is to come.
    low: Option<u8>,
    bytes: usize,
    expected_bytes: usize,
    /// Whether there is room for all of them.
    has_room: bool,
    dims: usize,
}

impl F16Parts {
    /// Nothing yet of `[rows, dims]`.
    pub fn new(rows: usize, dims: usize) -> Self {
        let values = rows.checked_mul(dims).and_then(|values| values.checked_mul(2));
        Self {
            values: Vec::new(),
            low: None,
            bytes: 0,
            expected_bytes: values.unwrap_or(usize::MAX),
            has_room: true,
            dims,
        }
    }

    /// Takes the next bytes: values little-endian, row after row. What is too much is counted and dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        let wanted = self.expected_bytes - self.bytes.min(self.expected_bytes);
        self.bytes = self.bytes.saturating_add(bytes.len());
        let bytes = &bytes[..bytes.len().min(wanted)];
        let missing = self.expected_bytes / 2 - self.values.len();
        self.has_room &= self.values.try_reserve_exact(missing).is_ok();
        if !self.has_room {
            return;
        }
        let rest = match (self.low, bytes.split_first()) {
            (Some(low), Some((&high, rest))) => {
                self.values.push(f16::from_le_bytes([low, high]));
                self.low = None;
                rest
            }
            _ => bytes,
        };
        let (pairs, odd) = rest.as_chunks();
        self.values.extend(pairs.iter().map(|&pair| f16::from_le_bytes(pair)));
        self.low = odd.first().copied().or(self.low);
    }

    /// The vectors, all of which must be there.
    ///
    /// # Errors
    /// [`ErrorKind::LengthsDiffer`] when there were more or fewer bytes, those of [`EmbeddingStore::from_f16`], and one of
    /// [`ErrorKind::Io`] when there is no room for all.
    pub fn finish(self) -> Result<EmbeddingStore, Error> {
        if !self.has_room {
            return Err(std::io::Error::from(std::io::ErrorKind::OutOfMemory).into());
        }
        let (expected, found) = (self.expected_bytes, self.bytes);
        if expected != found {
            return Err(ErrorKind::LengthsDiffer {
                what: "bytes of f16 embeddings",
                expected,
                found,
            }
            .into());
        }
        EmbeddingStore::from_f16(self.values, self.dims)
    }
}

fn checked_rows(values: usize, dims: usize) -> Result<usize, Error> {
    if dims == 0 {
        return Err(ErrorKind::ZeroDims.into());
    }
    if !values.is_multiple_of(dims) {
        return Err(ErrorKind::RaggedRows { values, dims }.into());
    }
    let rows = values / dims;
    match rows < u32::MAX as usize {
        true => Ok(rows),
        false => Err(ErrorKind::TooManyRows { rows }.into()),
    }
}

fn check_finite<T: Copy + Into<f32>>(values: &[T], dims: usize) -> Result<(), Error> {
    let not_finite = |&value: &T| !Into::<f32>::into(value).is_finite();
    match values.iter().position(not_finite) {
        None => Ok(()),
        Some(place) => {
            let value = f64::from(Into::<f32>::into(values[place]));
            Err(ErrorKind::NotFinite {
                what: "embedding",
                row: place / dims,
                column: place % dims,
                value,
            }
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        assert!(matches!(
            EmbeddingStore::from_f32(vec![1.0], 0).unwrap_err().kind(),
            ErrorKind::ZeroDims
        ));
        let error = EmbeddingStore::from_f32(vec![1.0; 7], 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a multiple of 3 values (3 dimensions), found 7"
        );
    }

    #[test]
    fn infinities_name_their_row_in_both_widths() {
        let error = EmbeddingStore::from_f16(vec![f16::ONE, f16::ONE, f16::NEG_INFINITY, f16::ONE], 2).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotFinite { row: 1, column: 0, .. }),
            "{error}"
        );
        let error = EmbeddingStore::from_f32(vec![1.0, 70_000.0], 1)
            .unwrap()
            .to_f16()
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::BeyondF16 { row: 1, column: 0, .. }),
            "{error}"
        );
    }

    #[test]
    fn f16_files_read_back_and_a_short_one_is_an_error() {
        let store = EmbeddingStore::from_f32(vec![1.0, -2.5, 0.1, 0.0, 3.0, 65_504.0], 2).unwrap();
        let mut bytes = Vec::new();
        store.write_f16(&mut bytes).unwrap();
        assert_eq!(bytes[..4], [0x00, 0x3c, 0x00, 0xc1]); // 1 and −2.5, low byte first
        assert_eq!(
            EmbeddingStore::read_f16(&bytes[..], 3, 2).unwrap(),
            store.to_f16().unwrap()
        );
        let error = EmbeddingStore::read_f16(&bytes[..10], 3, 2).unwrap_err();
        assert_eq!(error.to_string(), "expected 12 bytes of f16 embeddings, found 10");
        let error = EmbeddingStore::read_f16(&[0; 13][..], 3, 2).unwrap_err();
        assert_eq!(error.to_string(), "expected 12 bytes of f16 embeddings, found 13");
    }

    #[test]
    fn parts_of_any_length_are_the_whole() {
        let store = EmbeddingStore::from_f32((0u8..24).map(f32::from).collect(), 4).unwrap();
        let mut bytes = Vec::new();
        store.write_f16(&mut bytes).unwrap();
        for length in [1, 2, 3, 5, 7, 48, 100] {
            let mut parts = F16Parts::new(6, 4);
            bytes.chunks(length).for_each(|part| parts.push(part));
            assert_eq!(parts.finish().unwrap(), store.to_f16().unwrap(), "parts of {length}");
        }
        let mut parts = F16Parts::new(usize::MAX / 8, 2);
        parts.push(&[0]);
        assert!(matches!(parts.finish().unwrap_err().kind(), ErrorKind::Io { .. }));
    }
}
