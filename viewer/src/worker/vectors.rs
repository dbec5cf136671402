//! The items' vectors of a checkpoint, which the worker holds: those that were asked for last.

use std::ops::Range;

use eval_core::Cutoff;
use eval_core::report::{F16File, Found};
use eval_core::retrieval::Similarity;
use leptos::task::spawn_local;
use web_sys::js_sys::Uint8Array;

use super::{Reply, Request, Worker};
use crate::load::Source;
use crate::state::{RwSignal, StoredValue};

/// How far they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum VectorsState {
    /// Nobody asked for them, or others were asked for since.
    #[default]
    Absent,
    /// They are on their way.
    Coming {
        /// Bytes that are there.
        done: usize,
        /// Bytes of the whole file.
        of: usize,
    },
    /// They can be ranked.
    Ready,
    /// Why they cannot be had.
    Problem(String),
}

/// The vectors of one checkpoint at a time. They stay from page to page.
#[derive(Clone, Copy, Debug)]
pub struct Vectors {
    /// What ranks them.
    pub worker: Worker,
    /// Whose they are, and how far.
    held: RwSignal<Option<(Source, usize, VectorsState)>>,
    /// The number of the last reading.
    reading: StoredValue<u32>,
}

impl Vectors {
    /// None yet.
    pub fn new(worker: Worker) -> Self {
        Self {
            worker,
            held: RwSignal::new(None),
            reading: StoredValue::new(0),
        }
    }

    /// How far those of a checkpoint are; tracked.
    pub fn state(self, source: &Source, checkpoint: usize) -> VectorsState {
        self.held.with(|held| match held {
            Some((of, number, state)) if of == source && *number == checkpoint => state.clone(),
            _ => VectorsState::Absent,
        })
    }

    /// Reads those of a checkpoint, in place of others.
    pub fn read(self, source: Source, checkpoint: usize) {
        let found = source.manifest().checkpoints.get(checkpoint);
        let Some(file) = found.and_then(|found| Some(found.embeddings.as_ref()?.items.clone())) else {
            return;
        };
        let reading = self.reading.with_value(|last| last.wrapping_add(1));
        self.reading.set_value(reading);
        let of = bytes_of(&file);
        self.held
            .set(Some((source.clone(), checkpoint, VectorsState::Coming { done: 0, of })));
        spawn_local(async move {
            let state = match self.read_file(reading, &source, &file).await {
                Ok(()) => VectorsState::Ready,
                Err(problem) => VectorsState::Problem(problem),
            };
            self.set(reading, state);
        });
    }

    async fn read_file(self, reading: u32, source: &Source, file: &F16File) -> Result<(), String> {
        let begin = Request::Begin {
            reading,
            rows: file.rows,
            dims: file.dims,
        };
        self.worker.ask(begin, None).await?;
        let mut pieces = source.pieces(&file.file).await.map_err(|error| error.to_string())?;
        let (mut done, mut told, of) = (0, 0, bytes_of(file));
        while let Some(piece) = pieces.next().await.map_err(|error| error.to_string())? {
            done += piece.byte_length() as usize;
            self.worker.ask(Request::Part { reading }, Some(piece)).await?;
            // A hundred steps are enough to see.
            if done - told > of / 100 {
                told = done;
                self.set(reading, VectorsState::Coming { done, of });
            }
        }
        let ended = self.worker.ask(Request::End { reading }, None).await;
        ended.map(drop).map_err(|problem| format!("{}: {problem}", file.file))
    }

    /// A reading that is no longer wanted says nothing.
    fn set(self, reading: u32, state: VectorsState) {
        if self.reading.get_value() == reading {
            self.held.update(|held| {
                if let Some(held) = held {
                    held.2 = state;
                }
            });
        }
    }

    /// Ranks the items for a vector, `[dims]` f16 in bytes. Also says how many milliseconds it took.
    ///
    /// # Errors
    /// In words for the page.
    pub async fn rank(
        self,
        vector: &[u8],
        masked: Vec<u32>,
        targets: Vec<u32>,
        places: Cutoff,
        similarity: Similarity,
    ) -> Result<(Found, f64), String> {
        let request = Request::Rank {
            masked,
            targets,
            places,
            similarity,
        };
        match self.worker.ask(request, Some(Uint8Array::from(vector))).await? {
            Reply::Ranked { found, took_ms } => Ok((found, took_ms)),
            _ => Err("The worker answered something else.".to_owned()),
        }
    }
}

/// Bytes of the vectors of a file.
pub fn bytes_of(file: &F16File) -> usize {
    file.rows.saturating_mul(file.dims).saturating_mul(2)
}

/// Where in the file a row is.
pub fn row_of(file: &F16File, row: usize) -> Option<Range<usize>> {
    let bytes = file.dims.checked_mul(2)?;
    (row < file.rows).then_some(())?;
    Some(row.checked_mul(bytes)?..(row + 1).checked_mul(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_lies_behind_those_before_it() {
        let file = F16File {
            file: "items.f16".into(),
            rows: 8,
            dims: 3,
        };
        assert_eq!((row_of(&file, 7), row_of(&file, 8)), (Some(42..48), None));
        assert_eq!(bytes_of(&file), 48);
    }
}
