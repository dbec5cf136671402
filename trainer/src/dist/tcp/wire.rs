//! What collectives send: a head, then numbers, little-endian.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::Call;
use crate::dist::Operation;

/// Values that are sent and summed at a time.
pub(super) const PIECE: usize = 1 << 18;

/// Bytes of values that are turned into little-endian at a time.
const BUFFER: usize = 1 << 16;

const HEAD_BYTES: usize = 24;
const MARK: [u8; 3] = *b"LPT";

/// What a rank is about to do: mark 3, operation 1, root 4, number 8, length 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    operation: Operation,
    root: u32,
    number: u64,
    /// Bytes that follow from this rank.
    pub(super) length: u64,
}

impl Head {
    pub(super) fn new(call: Call, length: u64) -> Self {
        Self {
            operation: call.operation,
            root: call.root as u32,
            number: call.number,
            length,
        }
    }

    pub(super) fn same_call(self, other: Self) -> bool {
        (self.operation, self.root, self.number) == (other.operation, other.root, other.number)
    }

    pub(super) fn write(self, mut to: &TcpStream) -> io::Result<()> {
        let bytes = [
            &MARK[..],
            &[self.operation.code()],
            &self.root.to_le_bytes(),
            &self.number.to_le_bytes(),
            &self.length.to_le_bytes(),
        ];
        to.write_all(&bytes.concat())
    }

    pub(super) fn read(mut from: &TcpStream) -> io::Result<Self> {
        let mut bytes = [0; HEAD_BYTES];
        from.read_exact(&mut bytes)?;
        let (numbers, _) = bytes.as_chunks::<8>();
        let [start, number, length] = [numbers[0], numbers[1], numbers[2]];
        let [a, b, c, operation, root @ ..] = start;
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "a garbled message");
        let operation = Operation::from_code(operation)
            .filter(|_| [a, b, c] == MARK)
            .ok_or_else(garbled)?;
        Ok(Self {
            operation,
            root: u32::from_le_bytes(root),
            number: u64::from_le_bytes(number),
            length: u64::from_le_bytes(length),
        })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            number,
            length,
            root,
        } = self;
        write!(out, "{operation} {number} of {length} bytes")?;
        match operation {
            Operation::Broadcast | Operation::BroadcastBytes => write!(out, " from rank {root}"),
            _ => Ok(()),
        }
    }
}

/// A number that travels.
pub(super) trait Number: Copy + Default {
    /// Puts the value into `bytes`, which has its size.
    fn put(self, bytes: &mut [u8]);
    /// The value in `bytes`.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Number for $number {
            fn put(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(Self::default(), Self::from_le_bytes)
            }
        }
    )*};
}

number!(u8, u64, f32, f64);

/// A number that is summed.
pub(super) trait Sum: Number {
    /// Exactly.
    fn to_f64(self) -> f64;
    /// Rounded.
    fn from_f64(sum: f64) -> Self;
}

impl Sum for f32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    fn from_f64(sum: f64) -> Self {
        sum as Self
    }
}

impl Sum for f64 {
    fn to_f64(self) -> f64 {
        self
    }

    fn from_f64(sum: f64) -> Self {
        sum
    }
}

/// Sends `values`.
pub(super) fn write<T: Number>(mut to: &TcpStream, values: &[T]) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER.min(size_of_val(values))];
    for values in values.chunks(BUFFER / size_of::<T>()) {
        let bytes = &mut buffer[..size_of_val(values)];
        for (value, bytes) in values.iter().zip(bytes.chunks_exact_mut(size_of::<T>())) {
            value.put(bytes);
        }
        to.write_all(bytes)?;
    }
    Ok(())
}

/// Fills `values`.
pub(super) fn read<T: Number>(mut from: &TcpStream, values: &mut [T]) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER.min(size_of_val(values))];
    for values in values.chunks_mut(BUFFER / size_of::<T>()) {
        let bytes = &mut buffer[..size_of_val(values)];
        from.read_exact(bytes)?;
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
            *value = T::get(bytes);
        }
    }
    Ok(())
}
