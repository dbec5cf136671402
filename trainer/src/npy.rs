//! NumPy's `.npy` files (format 1.0), written.

use std::path::Path;

use models::{ModelError, write_atomically};

/// Writes row-major `values`, `[rows, columns]`, as little-endian float32.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, values: &[f32], columns: usize) -> Result<(), ModelError> {
    let rows = values.len().checked_div(columns).unwrap_or(0);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Magic, version and length take 10 bytes; data starts at a multiple of 64.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');
    write_atomically(path, |out| {
        out.write_all(b"\x93NUMPY\x01\x00")?;
        out.write_all(&(header.len() as u16).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    })
}
