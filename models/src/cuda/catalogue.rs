//! A catalogue's vectors on a card, and where targets stand in it.

use super::gemm::{Factor, Scale};
use super::gpu::{Buffer, Element, Gpu, View};
use super::kernels::{COUNT_RANKS, UNIT_ROWS, UNIT_ROWS_HALF};
use super::launch::Argument;
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
            rows: upload(gpu, vectors, width, element)?,
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
        let targets = asked.targets.len();
        // Counts, three a target, and lengths of queries: f32 and u32 are equally long.
        let answers = gpu.zeros(3 * targets + count, Element::F32)?;
        let lengths = answers.pointer() + 12 * targets as u64;
        let rows = gpu.elements(count * self.width, self.element)?;
        let given = gpu.upload(queries)?;
        scale(gpu, rows.matrix(count, self.width), self.element, lengths, &given)?;
        let scores = gpu.elements(count * self.items, Element::F32)?;
        gpu.multiply(
            (scores.matrix(count, self.items), Element::F32),
            Factor::Plain(rows.matrix(count, self.width)),
            Factor::Transposed(self.rows.matrix(self.items, self.width)),
            self.element,
            Scale::ONE,
        )?;
        let parts = (8 * gpu.multiprocessors() as usize)
            .div_ceil(targets.max(1))
            .clamp(1, self.items.div_ceil(1024).max(1));
        let lists = [&asked.targets, &asked.queries, &asked.masked, &asked.starts];
        let all = gpu.upload(&lists.map(Vec::as_slice).concat())?;
        let mut next = all.pointer();
        let [target, query, masked, starts] = lists.map(|list| {
            let own = next;
            next += 4 * list.len() as u64;
            Argument::Address(own)
        });
        // SAFETY: targets and masked items lie in the catalogue, queries among the rows of scores; answers begin with three a target.
        unsafe {
            let arguments = [
                (&answers).into(),
                (&scores).into(),
                target,
                query,
                masked,
                starts,
                (self.items as u32).into(),
            ];
            let grid = [parts as u32, targets as u32, 1];
            gpu.launch(COUNT_RANKS, Element::F32, grid, 256, 0, &arguments)?;
        }
        let answers: Vec<u32> = answers.read(0, 3 * targets + count)?;
        let (counts, lengths) = answers.split_at(3 * targets);
        check_lengths(lengths, "query")?;
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

/// The vectors of a catalogue, at length 1, on the card.
fn upload(gpu: &Gpu, vectors: &[f32], width: usize, element: Element) -> Result<Buffer, ModelError> {
    /// Values that are copied and scaled at once.
    const VALUES: usize = 16 << 20;
    let (items, most) = (vectors.len() / width, (VALUES / width).max(1));
    let buffer = gpu.elements(vectors.len(), element)?;
    let lengths = gpu.elements(items, Element::F32)?;
    for (first, part) in (0..items).step_by(most).zip(vectors.chunks(most * width)) {
        let given = gpu.upload(part)?;
        let into = buffer.matrix(items, width).rows(first, part.len() / width, element);
        scale(gpu, into, element, lengths.pointer() + 4 * first as u64, &given)?;
    }
    check_lengths(&lengths.read::<u32>(0, items)?, "item")?;
    Ok(buffer)
}

/// Puts vectors, f32, at length 1 into `out`; the lengths that they had go to `lengths`, f32.
fn scale(gpu: &Gpu, out: View, element: Element, lengths: u64, vectors: &Buffer) -> Result<(), ModelError> {
    let kernel = match element {
        Element::F16 => UNIT_ROWS_HALF,
        Element::F32 | Element::Bf16 => UNIT_ROWS,
    };
    // SAFETY: all have so many rows; a catalogue's are f32 or f16.
    unsafe {
        let arguments = [
            out.into(),
            Argument::Address(lengths),
            vectors.into(),
            out.columns.into(),
            0.0_f32.into(),
        ];
        gpu.launch(kernel, Element::F32, [out.rows as u32, 1, 1], 256, 0, &arguments)
    }
}

/// Refuses vectors whose lengths, as bits of f32, are zero or not finite.
fn check_lengths(lengths: &[u32], what: &str) -> Result<(), ModelError> {
    let bad = |bits: &u32| {
        let length = f32::from_bits(*bits);
        length == 0.0 || !length.is_finite()
    };
    match lengths.iter().position(bad) {
        None => Ok(()),
        Some(row) => Err(ModelError::Input(format!(
            "{what} {row}: a vector of zeros, or with values that are not finite"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn vectors_without_a_length_are_named() {
        let bits = |lengths: &[f32]| lengths.iter().map(|length| length.to_bits()).collect::<Vec<_>>();
        assert!(check_lengths(&bits(&[1.0, 1e-30, 2.5]), "item").is_ok());
        for bad in [0.0, f32::NAN, f32::INFINITY] {
            let error = check_lengths(&bits(&[1.0, bad]), "item").unwrap_err().to_string();
            assert!(error.contains("item 1: a vector of zeros, or"), "{error}");
        }
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
