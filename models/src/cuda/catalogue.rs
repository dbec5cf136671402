//! A catalogue's vectors on a card, and where targets stand in it.

use half::f16;
use rayon::prelude::*;

use super::gemm::{Factor, Scale};
use super::gpu::{Buffer, Element, Gpu};
use super::kernels::COUNT_RANKS;
use crate::ModelError;

/// Queries whose scores are held at once: 4 bytes an item each.
const QUERIES: usize = 64;
/// Bytes of scores at most.
const SCORE_BYTES: usize = 1 << 30;

/// What is asked about a query's ranking.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Items that are left out, each once.
    pub masked: &'a [u32],
    /// Items whose places are wanted, none of them masked.
    pub targets: &'a [u32],
}

/// A target's place, in counts over the items that are not masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The target.
    pub item: u32,
    /// Items that score higher.
    pub above: u32,
    /// Items that score the same and have a lower index.
    pub tied_before: u32,
    /// All others that score the same.
    pub tied: u32,
}

/// The vectors of a catalogue, each scaled to length 1: scores are cosines, summed in f32.
#[derive(Debug)]
pub struct CudaCatalogue {
    gpu: Gpu,
    /// f16 or f32.
    element: Element,
    rows: Buffer,
    items: usize,
    width: usize,
}

impl CudaCatalogue {
    /// A catalogue of `vectors`, `[items, width]`. With [`Element::F32`] they are kept as they are, otherwise as f16, whose step
    /// is an eighth of bf16's.
    ///
    /// # Errors
    /// A vector that is zero or not finite, or too little memory.
    pub fn new(gpu: &Gpu, vectors: &[f32], width: usize, element: Element) -> Result<Self, ModelError> {
        let element = match element {
            Element::F32 => Element::F32,
            Element::Bf16 | Element::F16 => Element::F16,
        };
        Ok(Self {
            rows: upload(gpu, vectors, width, element, "item")?,
            items: vectors.len() / width,
            width,
            gpu: gpu.clone(),
            element,
        })
    }

    /// The places of each query's targets, in their order. `queries`: `[wanted, width]`.
    ///
    /// # Errors
    /// Queries of another width or number; an item beyond the catalogue; a masked target.
    pub fn rank(&self, queries: &[f32], wanted: &[Wanted<'_>]) -> Result<Vec<Vec<Counts>>, ModelError> {
        if queries.len() != wanted.len() * self.width {
            return Err(ModelError::Input(format!(
                "{} values for {} queries of {}",
                queries.len(),
                wanted.len(),
                self.width
            )));
        }
        let most = (SCORE_BYTES / 4 / self.items.max(1)).clamp(1, QUERIES);
        let mut all = Vec::with_capacity(wanted.len());
        for first in (0..wanted.len()).step_by(most) {
            let range = first..(first + most).min(wanted.len());
            let own = &queries[range.start * self.width..range.end * self.width];
            all.extend(self.rank_block(own, &wanted[range])?);
        }
        Ok(all)
    }

    fn rank_block(&self, queries: &[f32], wanted: &[Wanted<'_>]) -> Result<Vec<Vec<Counts>>, ModelError> {
        let (gpu, count) = (&self.gpu, wanted.len());
        let asked = Asked::new(wanted, self.items)?;
        let rows = upload(gpu, queries, self.width, self.element, "query")?;
        let scores = gpu.elements(count * self.items, Element::F32)?;
        gpu.multiply(
            (scores.matrix(count, self.items), Element::F32),
            Factor::Plain(rows.matrix(count, self.width)),
            Factor::Transposed(self.rows.matrix(self.items, self.width)),
            self.element,
            Scale::ONE,
        )?;
        let targets = asked.targets.len();
        let counts = gpu.zeros(3 * targets, Element::F32)?;
        let [target, query, masked, starts] = [
            gpu.upload(&asked.targets)?,
            gpu.upload(&asked.queries)?,
            gpu.upload(&asked.masked)?,
            gpu.upload(&asked.starts)?,
        ];
        let parts = (8 * gpu.multiprocessors() as usize)
            .div_ceil(targets.max(1))
            .clamp(1, self.items.div_ceil(1024).max(1));
        // SAFETY: targets and masked items lie in the catalogue, queries among the rows of scores; counts has three a target.
        unsafe {
            let arguments = [
                (&counts).into(),
                (&scores).into(),
                (&target).into(),
                (&query).into(),
                (&masked).into(),
                (&starts).into(),
                (self.items as u32).into(),
            ];
            let grid = [parts as u32, targets as u32, 1];
            gpu.launch(COUNT_RANKS, Element::F32, grid, 256, 0, &arguments)?;
        }
        let counts: Vec<u32> = counts.read(0, 3 * targets)?;
        let each = asked.targets.iter().zip(counts.chunks_exact(3));
        let mut each = each.map(|(&item, counts)| Counts {
            item,
            above: counts[0],
            tied_before: counts[1],
            tied: counts[2],
        });
        let take = |wanted: &Wanted<'_>| each.by_ref().take(wanted.targets.len()).collect();
        Ok(wanted.iter().map(take).collect())
    }
}

/// What is asked, as the kernel wants it.
struct Asked {
    targets: Vec<u32>,
    /// Of each target.
    queries: Vec<u32>,
    masked: Vec<u32>,
    /// Where each query's masked items begin, and the end.
    starts: Vec<u32>,
}

impl Asked {
    fn new(wanted: &[Wanted<'_>], items: usize) -> Result<Self, ModelError> {
        let mut asked = Self {
            targets: Vec::new(),
            queries: Vec::new(),
            masked: Vec::new(),
            starts: vec![0],
        };
        for (query, one) in wanted.iter().enumerate() {
            let mut masked = one.masked.to_vec();
            masked.sort_unstable();
            masked.dedup();
            let each = one.targets.iter().chain(&masked);
            if let Some(item) = each.copied().find(|&item| item as usize >= items) {
                let message = format!("query {query}: item {item} in a catalogue of {items}");
                return Err(ModelError::Input(message));
            }
            let mut targets = one.targets.iter();
            if let Some(item) = targets.find(|item| masked.binary_search(item).is_ok()) {
                return Err(ModelError::Input(format!("query {query}: target {item} is masked")));
            }
            asked.queries.extend(one.targets.iter().map(|_| query as u32));
            asked.targets.extend(one.targets);
            asked.masked.extend(masked);
            asked.starts.push(asked.masked.len() as u32);
        }
        Ok(asked)
    }
}

/// Rows of length 1 on the card.
fn upload(gpu: &Gpu, vectors: &[f32], width: usize, element: Element, what: &str) -> Result<Buffer, ModelError> {
    /// Values that are scaled and copied at once.
    const VALUES: usize = 16 << 20;
    let buffer = gpu.elements(vectors.len(), element)?;
    let step = (VALUES / width).max(1) * width;
    for (block, part) in vectors.chunks(step).enumerate() {
        let scaled = scaled(part, width).map_err(|row| {
            let row = block * (step / width) + row;
            ModelError::Input(format!(
                "{what} {row}: a vector of zeros, or with values that are not finite"
            ))
        })?;
        let offset = block * step * element.bytes();
        match element {
            Element::F32 | Element::Bf16 => buffer.write(offset, &scaled)?,
            Element::F16 => {
                let narrow: Vec<f16> = scaled.par_iter().map(|&value| f16::from_f32(value)).collect();
                buffer.write(offset, &narrow)?;
            }
        }
    }
    Ok(buffer)
}

/// The rows divided by their lengths, or the number of one that has none.
fn scaled(vectors: &[f32], width: usize) -> Result<Vec<f32>, usize> {
    let lengths: Vec<f64> = vectors
        .par_chunks(width)
        .map(|row| row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt())
        .collect();
    if let Some(row) = lengths.iter().position(|&length| length == 0.0 || !length.is_finite()) {
        return Err(row);
    }
    let mut scaled = vectors.to_vec();
    scaled.par_chunks_mut(width).zip(&lengths).for_each(|(row, length)| {
        for value in row {
            *value = (f64::from(*value) / length) as f32;
        }
    });
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn rows_are_scaled_and_bad_ones_named() {
        assert_eq!(scaled(&[3.0, 4.0, 0.0, 2.0], 2).unwrap(), [0.6, 0.8, 0.0, 1.0]);
        assert_eq!(scaled(&[3.0, 4.0, 0.0, 0.0], 2).unwrap_err(), 1);
        assert_eq!(scaled(&[3.0, f32::NAN], 2).unwrap_err(), 0);
    }

    #[test]
    fn masks_are_sorted_and_refused_where_they_hide_a_target() {
        let asked = Asked::new(
            &[
                Wanted {
                    masked: &[4, 1, 4],
                    targets: &[2],
                },
                Wanted {
                    masked: &[],
                    targets: &[0, 3],
                },
            ],
            5,
        )
        .unwrap();
        assert_eq!((asked.masked, asked.starts), (vec![1, 4], vec![0, 2, 2]));
        assert_eq!((asked.targets, asked.queries), (vec![2, 0, 3], vec![0, 1, 1]));
        let refused = |masked: &[u32], targets: &[u32]| Asked::new(&[Wanted { masked, targets }], 5).err().unwrap();
        assert!(refused(&[2], &[2]).to_string().contains("target 2 is masked"));
        assert!(refused(&[], &[5]).to_string().contains("item 5"));
    }
}
