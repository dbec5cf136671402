//! A map of a checkpoint's vectors in two dimensions.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind};

/// Where items and profiles lie on the two axes along which the items' vectors differ most (principal components). Each file
/// is read as [`Points`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MapFiles {
    /// The items, `[items]`.
    pub items: String,
    /// The generated profiles, `[users · profiles_per_user]`: a user's profiles one after the other.
    pub profiles: String,
    /// The reference profiles, `[users]`; `None` where they were not evaluated.
    pub references: Option<String>,
    /// The share of the items' variance that lies along each axis, the first the larger.
    pub explained: [f64; 2],
}

impl MapFiles {
    /// Its files with their names as fields.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let references = self.references.as_deref().map(|file| ("references", file));
        [("items", &*self.items), ("profiles", &*self.profiles)]
            .into_iter()
            .chain(references)
    }
}

/// Points in a plane; a file is rows of x and y as little-endian f32, without a header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Points {
    /// `[x, y]` of each.
    pub points: Vec<[f32; 2]>,
}

impl Points {
    /// Reads `rows` points, which must end there.
    ///
    /// # Errors
    /// [`ErrorKind::LengthsDiffer`] when there are more or fewer bytes, [`ErrorKind::NotFinite`], and those of the reader.
    pub fn read(mut reader: impl Read, rows: usize) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
        let expected = rows.saturating_mul(8);
        if bytes.len() != expected {
            return Err(ErrorKind::LengthsDiffer {
                what: "bytes of points",
                expected,
                found: bytes.len(),
            }
            .into());
        }
        let mut values = bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let mut points = Vec::with_capacity(rows);
        while let (Some(x), Some(y)) = (values.next(), values.next()) {
            for (column, value) in [x, y].into_iter().enumerate() {
                if !value.is_finite() {
                    let (row, value) = (points.len(), f64::from(value));
                    let what = "point";
                    return Err(ErrorKind::NotFinite {
                        what,
                        row,
                        column,
                        value,
                    }
                    .into());
                }
            }
            points.push([x, y]);
        }
        Ok(Self { points })
    }

    /// Writes them.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut writer: impl Write) -> Result<(), Error> {
        for [x, y] in &self.points {
            let ([a, b, c, d], [e, f, g, h]) = (x.to_le_bytes(), y.to_le_bytes());
            writer.write_all(&[a, b, c, d, e, f, g, h])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn points_read_back_and_a_short_file_is_an_error() {
        let points = Points {
            points: vec![[1.0, -2.5], [0.1, 3.0]],
        };
        let mut file = Vec::new();
        points.write(&mut file).unwrap();
        assert_eq!(file[..8], [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]); // 1 and −2.5, low byte first
        assert_eq!(Points::read(&file[..], 2).unwrap(), points);
        let error = Points::read(&file[..], 3).unwrap_err();
        assert_eq!(error.to_string(), "expected 24 bytes of points, found 16");
        file[12..].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = Points::read(&file[..], 2).unwrap_err();
        assert!(
            error.to_string().starts_with("point row 1 holds NaN in column 1"),
            "{error}"
        );
    }
}
