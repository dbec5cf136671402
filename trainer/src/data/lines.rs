//! JSON-lines files, plain or gzip, read once from front to back in chunks of whole lines.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use flate2::bufread::MultiGzDecoder;
use rayon::prelude::*;

use super::DataError;
use crate::progress::Progress;

/// Large enough to keep all cores busy on one, small enough that the few in flight do not matter.
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that may wait for the consumer.
const CHUNKS_AHEAD: usize = 2;

/// Whole lines of a file.
pub(super) struct Chunk {
    /// The number of the first line, from 1.
    first_line: u32,
    bytes: Vec<u8>,
}

impl Chunk {
    /// The lines that are not blank, with their numbers.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let numbers = self.first_line..;
        numbers
            .zip(self.bytes.split(|byte| *byte == b'\n'))
            .filter(|(_, line)| !line.trim_ascii().is_empty())
    }
}

/// Gives `each` the chunks of `path` in order, while another thread reads and decompresses ahead.
pub(super) fn for_each_chunk(
    path: &Path,
    label: &str,
    mut each: impl FnMut(&Chunk) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        line: 0,
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let (unit, unit_bytes) = if bytes < 100_000_000 {
        ("kB", 1000)
    } else {
        ("MB", 1_000_000)
    };
    let mut progress = Progress::start(label, unit, Some(bytes / unit_bytes));
    let mut shown = 0;
    let read = Arc::new(AtomicU64::new(0));
    let counted = CountedFile {
        file,
        read: Arc::clone(&read),
    };
    thread::scope(|scope| -> Result<(), DataError> {
        let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
        scope.spawn(move || send_chunks(path, counted, &sender));
        // Leaving early drops the receiver, which ends the reading thread.
        for chunk in receiver {
            each(&chunk?)?;
            let done = read.load(Ordering::Relaxed) / unit_bytes;
            progress.add(done - shown);
            shown = done;
        }
        Ok(())
    })?;
    progress.finish();
    Ok(())
}

/// Parses the lines numbered in `wanted` (ascending, without repetition) in parallel; one result a line, in that order.
pub(super) fn read_wanted<T: Send>(
    path: &Path,
    label: &str,
    wanted: &[u32],
    parse: impl Fn(u32, &[u8]) -> Result<T, DataError> + Sync,
    mut each: impl FnMut(T),
) -> Result<(), DataError> {
    let mut left = wanted;
    for_each_chunk(path, label, |chunk| {
        let mut chosen = Vec::new();
        for (number, line) in chunk.lines() {
            match left.split_first() {
                Some((first, rest)) if *first == number => {
                    chosen.push((number, line));
                    left = rest;
                }
                _ => {}
            }
        }
        let parsed: Result<Vec<T>, DataError> = chosen
            .into_par_iter()
            .map(|(number, line)| parse(number, line))
            .collect();
        parsed?.into_iter().for_each(&mut each);
        Ok(())
    })?;
    match left.first() {
        None => Ok(()),
        Some(line) => Err(DataError::Changed {
            path: path.to_owned(),
            line: *line,
        }),
    }
}

/// A file that counts what has been read of it, for the progress bar: compressed bytes where it is compressed.
struct CountedFile {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for CountedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

fn send_chunks(path: &Path, file: CountedFile, sender: &mpsc::SyncSender<Result<Chunk, DataError>>) {
    let mut lines_read: u32 = 0;
    let mut reader = match decoded(file) {
        Ok(reader) => reader,
        Err(source) => {
            // Nobody listening means that the consumer has failed already.
            let _ = sender.send(Err(DataError::Read {
                path: path.to_owned(),
                line: 0,
                source,
            }));
            return;
        }
    };
    let mut rest = Vec::new();
    loop {
        let chunk = match next_chunk(&mut reader, &mut rest) {
            Ok(Some(bytes)) => chunk_of(path, bytes, &mut lines_read),
            Ok(None) => return,
            Err(source) => Err(DataError::Read {
                path: path.to_owned(),
                line: lines_read,
                source,
            }),
        };
        let failed = chunk.is_err();
        if sender.send(chunk).is_err() || failed {
            return;
        }
    }
}

/// The decompressed stream: gzip is recognised by its first two bytes, whatever the file is called.
fn decoded(file: CountedFile) -> io::Result<Box<dyn Read>> {
    let mut buffered = BufReader::with_capacity(1 << 18, file);
    if buffered.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        // Several members in a row are one file to gzip, and `cat a.gz b.gz` makes such files.
        Ok(Box::new(MultiGzDecoder::new(buffered)))
    } else {
        Ok(Box::new(buffered))
    }
}

/// The next whole lines, the last one of the file with or without its newline; `rest` carries what is cut off.
fn next_chunk(reader: &mut impl Read, rest: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = std::mem::take(rest);
    loop {
        let read = reader.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut bytes)?;
        if read == 0 {
            return Ok((!bytes.is_empty()).then_some(bytes));
        }
        if let Some(last_newline) = bytes.iter().rposition(|byte| *byte == b'\n') {
            *rest = bytes.split_off(last_newline + 1);
            return Ok(Some(bytes));
        }
    }
}

fn chunk_of(path: &Path, bytes: Vec<u8>, lines_read: &mut u32) -> Result<Chunk, DataError> {
    let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let unfinished = usize::from(bytes.last() != Some(&b'\n'));
    let first_line = *lines_read + 1;
    *lines_read = u32::try_from(newlines + unfinished)
        .ok()
        .and_then(|lines| lines_read.checked_add(lines))
        .filter(|lines| *lines < u32::MAX)
        .ok_or_else(|| DataError::TooManyLines { path: path.to_owned() })?;
    Ok(Chunk { first_line, bytes })
}
