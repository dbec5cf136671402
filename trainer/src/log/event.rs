//! TensorBoard event files, written by hand: a few protobuf messages in TFRecord frames.
//!
//! A frame is the message's length (u64, little-endian), the masked CRC-32C of those 8 bytes, the message, and its
//! masked CRC-32C. The messages are `Event`, `Summary` and `TensorProto` of TensorFlow's public `.proto` files; the
//! field numbers below are theirs. tests/reference/tensorboard_check.py reads such a file with TensorBoard itself.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{LogError, cut_file, io_error};

/// Appends events to one file.
#[derive(Debug)]
pub(super) struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new file in `folder`; `wall_time` in seconds since 1970.
    pub(super) fn create(folder: &Path, wall_time: f64) -> Result<Self, LogError> {
        let mut serial = 0_u32;
        let (path, file) = loop {
            // TensorBoard reads the files of a folder in the order of their names.
            let path = folder.join(format!(
                "events.out.tfevents.{:010}.langptune.{serial}",
                wall_time as u64
            ));
            match File::options().append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => serial += 1,
                Err(error) => return Err(io_error("make", &path)(error)),
            }
        };
        let mut writer = Self { path, file };
        writer.append(&version_event(wall_time))?;
        Ok(writer)
    }

    pub(super) fn scalars(&mut self, wall_time: f64, step: u64, values: &[(&str, f64)]) -> Result<(), LogError> {
        self.append(&scalar_event(wall_time, step, values))
    }

    pub(super) fn text(&mut self, wall_time: f64, step: u64, tag: &str, text: &str) -> Result<(), LogError> {
        self.append(&text_event(wall_time, step, tag, text))
    }

    /// Waits until everything is on the disk.
    pub(super) fn flush(&self) -> Result<(), LogError> {
        self.file.sync_all().map_err(io_error("flush", &self.path))
    }

    fn append(&mut self, event: &[u8]) -> Result<(), LogError> {
        self.file
            .write_all(&frame(event))
            .map_err(io_error("write", &self.path))
    }
}

/// Cuts the event files of `folder` back to `lengths` by name, and removes the others.
pub(super) fn cut_back(folder: &Path, lengths: &BTreeMap<String, u64>) -> Result<(), LogError> {
    for path in files(folder)? {
        match lengths.get(&name(&path)) {
            Some(&length) => cut_file(&path, length)?,
            None => fs::remove_file(&path).map_err(io_error("remove", &path))?,
        }
    }
    Ok(())
}

/// Bytes of the event files of `folder`, by name.
pub(super) fn lengths(folder: &Path) -> Result<BTreeMap<String, u64>, LogError> {
    let length = |path: PathBuf| {
        let bytes = fs::metadata(&path).map_err(io_error("read", &path))?.len();
        Ok((name(&path), bytes))
    };
    files(folder)?.into_iter().map(length).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, LogError> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(io_error("read", folder))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(io_error("read", folder))?;
    paths.retain(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().contains("tfevents"))
    });
    paths.sort();
    Ok(paths)
}

fn version_event(wall_time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    event.bytes(3, b"brain.Event:2");
    event.0
}

fn scalar_event(wall_time: f64, step: u64, values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Message::default();
    for (tag, value) in values {
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes());
        entry.float(2, *value as f32);
        summary.bytes(1, &entry.0);
    }
    summary_event(wall_time, step, &summary)
}

fn text_event(wall_time: f64, step: u64, tag: &str, text: &str) -> Vec<u8> {
    /// `DT_STRING` of `DataType`.
    const STRING: u64 = 7;
    let mut plugin = Message::default();
    plugin.bytes(1, b"text");
    let mut metadata = Message::default();
    metadata.bytes(1, &plugin.0);
    let mut dimension = Message::default();
    dimension.integer(1, 1);
    let mut shape = Message::default();
    shape.bytes(2, &dimension.0);
    let mut tensor = Message::default();
    tensor.integer(1, STRING);
    tensor.bytes(2, &shape.0);
    tensor.bytes(8, text.as_bytes());
    let mut entry = Message::default();
    entry.bytes(1, tag.as_bytes());
    entry.bytes(8, &tensor.0);
    entry.bytes(9, &metadata.0);
    let mut summary = Message::default();
    summary.bytes(1, &entry.0);
    summary_event(wall_time, step, &summary)
}

fn summary_event(wall_time: f64, step: u64, summary: &Message) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, wall_time);
    if step > 0 {
        event.integer(2, step);
    }
    event.bytes(5, &summary.0);
    event.0
}

/// A protobuf message under construction; fields are appended in the order of their numbers.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut frame = Vec::with_capacity(message.len() + 16);
    frame.extend(length);
    frame.extend(masked_crc(&length).to_le_bytes());
    frame.extend_from_slice(message);
    frame.extend(masked_crc(message).to_le_bytes());
    frame
}

/// The checksum of TFRecord: rotated and shifted, so that data that holds checksums does not trip over itself.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The whole messages in a file, up to the first frame that is cut off or damaged.
#[cfg(test)]
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (message, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        bytes = rest;
        (u32::from_le_bytes(*crc) == masked_crc(message)).then_some(message)
    })
}

/// The step of an event that this module wrote: field 2, which follows the wall time; 0 where it is left out.
#[cfg(test)]
fn step_of(event: &[u8]) -> u64 {
    const WALL_TIME_BYTES: usize = 9;
    let Some([tag, rest @ ..]) = event.get(WALL_TIME_BYTES..) else {
        return 0;
    };
    if *tag != 2 << 3 {
        return 0;
    }
    let mut step = 0;
    for (position, byte) in rest.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            break;
        }
    }
    step
}

/// The steps of all summaries in a folder, in order.
#[cfg(test)]
pub(super) fn steps_in(folder: &Path) -> Result<Vec<u64>, LogError> {
    let mut steps = Vec::new();
    for path in files(folder)? {
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        steps.extend(messages(&bytes).map(step_of).filter(|step| *step > 0));
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Written by tests/reference/tensorboard_check.py with TensorBoard's own protobuf classes and record writer.
    const FIXTURE: &[u8] = include_bytes!("../../tests/fixtures/tensorboard.tfevents");

    #[test]
    fn a_file_is_byte_for_byte_what_tensorboard_writes() {
        let long = "Likes slow films.\n".repeat(20);
        let mut written = Vec::new();
        for event in [
            version_event(1_700_000_000.25),
            scalar_event(1_700_000_001.5, 0, &[("objective/kl", 0.0)]),
            scalar_event(
                1_700_000_002.5,
                300,
                &[("objective/gen_ndcg@20", 0.0494), ("dpo/lr", 1e-7)],
            ),
            text_event(1_700_000_003.5, 70_000, "samples", &long),
        ] {
            written.extend(frame(&event));
        }
        assert_eq!(written, FIXTURE);
    }

    #[test]
    fn steps_are_read_back() {
        let steps: Vec<u64> = messages(FIXTURE).map(step_of).collect();
        assert_eq!(steps, [0, 0, 300, 70_000]);
    }

    #[test]
    fn a_half_written_frame_ends_the_file() {
        assert_eq!(messages(&FIXTURE[..FIXTURE.len() - 3]).count(), 3);
        let mut damaged = FIXTURE.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(messages(&damaged).count(), 3);
    }
}
