//! Ranks in a catalogue beside sums in f64.

use super::Check;
use crate::ModelError;
use crate::cuda::catalogue::{Counts, CudaCatalogue, Wanted};
use crate::cuda::gpu::{Element, Gpu};
use crate::random::normal_values;

const WIDTH: usize = 56;
const QUERIES: usize = 67;

pub(super) fn check(gpu: &Gpu, seed: u64, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    for (items, number) in [(1, 0), (1237, 1), (4096, 2)] {
        let mut vectors = normal_values(seed, 90 + number, items * WIDTH, 1.0);
        // A few items stand there twice: they tie.
        for copy in (0..items / 10).map(|copy| 7 * copy) {
            let to = (copy + items / 2) % items * WIDTH;
            vectors.copy_within(copy * WIDTH..(copy + 1) * WIDTH, to);
        }
        let queries = normal_values(seed, 95 + number, QUERIES * WIDTH, 1.0);
        let asked: Vec<(Vec<u32>, Vec<u32>)> = (0..QUERIES as u32)
            .map(|query| {
                let item = |step: u32| (query * 7 * step) % items as u32;
                let targets: Vec<u32> = (1..=1 + query % 3).map(item).collect();
                let masked = (4..4 + query % 9).map(|step| item(step * step + 1));
                (masked.filter(|item| !targets.contains(item)).collect(), targets)
            })
            .collect();
        let wanted: Vec<Wanted<'_>> = asked
            .iter()
            .map(|(masked, targets)| Wanted { masked, targets })
            .collect();
        for (element, bound) in [(Element::F32, 1e-3), (Element::F16, 1e-2)] {
            let catalogue = CudaCatalogue::new(gpu, &vectors, WIDTH, element)?;
            let found = catalogue.rank(&queries, &wanted)?;
            let mut worst = 0.0_f64;
            for ((found, wanted), query) in found.iter().zip(&wanted).zip(queries.chunks_exact(WIDTH)) {
                for (found, &target) in found.iter().zip(wanted.targets) {
                    worst = worst.max(distance(found, target, query, &vectors, wanted.masked));
                }
            }
            report(Check {
                name: format!("catalogue of {items}, {element:?}: places passed over that are no near ties"),
                error: worst,
                bound: if items > 1 { bound } else { 0.0 },
            });
        }
    }
    Ok(())
}

/// By how many of all items the counts differ from those of f64, items within rounding of the target's score aside.
fn distance(found: &Counts, target: u32, query: &[f32], vectors: &[f32], masked: &[u32]) -> f64 {
    /// Closer than this two scores may fall either way in f16.
    const NEAR: f64 = 2e-4;
    let cosine = |item: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
        dot(query, item) / (dot(query, query) * dot(item, item)).sqrt()
    };
    let row = |item: u32| &vectors[item as usize * WIDTH..(item as usize + 1) * WIDTH];
    let own = cosine(row(target));
    let (mut above, mut near, mut same, mut before) = (0, 0, 0, 0);
    let items = (vectors.len() / WIDTH) as u32;
    for item in (0..items).filter(|item| !masked.contains(item) && *item != target) {
        let score = cosine(row(item));
        if row(item) == row(target) {
            same += 1;
            before += u32::from(item < target);
        } else if (score - own).abs() < NEAR {
            near += 1;
        } else {
            above += u32::from(score > own);
        }
    }
    let outside = |found: u32, least: u32, most: u32| found.saturating_sub(most) + least.saturating_sub(found);
    let wrong = outside(found.above, above, above + near)
        + outside(found.tied, same, same + near)
        + outside(found.tied_before, before, before + near)
        + u32::from(found.item != target);
    f64::from(wrong) / f64::from(items)
}
