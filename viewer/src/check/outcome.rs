//! What was found anew, beside what is recorded.

use eval_core::metrics::{Measure, Metric};
use eval_core::report::Found;
use eval_core::scores::{RankedTarget, ScoredItem};
use eval_core::{Cutoff, TargetRanks};

/// A place of both rankings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Counted from 1.
    pub rank: u32,
    /// The recorded item; `None` behind the last that is recorded.
    pub recorded: Option<ScoredItem>,
    /// The item that was found anew.
    pub found: Option<ScoredItem>,
}

impl Place {
    /// Whether both have the same item with the same score, to the last bit; `None` where nothing is recorded.
    pub fn is_equal(&self) -> Option<bool> {
        let bits = |scored: ScoredItem| (scored.item, scored.score.to_bits());
        self.recorded
            .map(|recorded| Some(bits(recorded)) == self.found.map(bits))
    }
}

/// The first places of both rankings.
pub fn places(recorded: &Found, found: &Found, cutoff: Cutoff) -> Vec<Place> {
    let (recorded, found): (Vec<_>, Vec<_>) = (recorded.top().collect(), found.top().collect());
    let count = recorded.len().max(found.len()).min(cutoff.get());
    let place = |place: usize| Place {
        rank: place as u32 + 1,
        recorded: recorded.get(place).copied(),
        found: found.get(place).copied(),
    };
    (0..count).map(place).collect()
}

/// What differs, in words: targets first, then the places that both have, at most `cutoff` of them. Empty where all is equal, to
/// the last bit.
pub fn differences(recorded: &Found, found: &Found, cutoff: Cutoff) -> Vec<String> {
    let other = |target: &RankedTarget| found.targets.iter().find(|other| other.item == target.item);
    let of_targets = recorded.targets.iter().filter_map(|target| match other(target) {
        Some(other) if other == target => None,
        Some(other) => Some(format!(
            "target {}: rank {} is recorded, {} was found",
            target.item,
            standing(target),
            standing(other)
        )),
        None => Some(format!("target {} was not found", target.item)),
    });
    let places = places(recorded, found, cutoff);
    let of_places = places.iter().filter(|place| place.is_equal() == Some(false));
    let of_places = of_places.map(|place| {
        let shown = |scored: Option<ScoredItem>| {
            scored.map_or_else(
                || "none".to_owned(),
                |scored| format!("item {} ({})", scored.item, scored.score),
            )
        };
        format!(
            "place {}: {} is recorded, {} was found",
            place.rank,
            shown(place.recorded),
            shown(place.found)
        )
    });
    of_targets.chain(of_places).collect()
}

/// A target's rank, and where it would be on the average if ties were broken at random.
pub fn standing(target: &RankedTarget) -> String {
    match target.tied {
        0 => target.rank.to_string(),
        _ => format!(
            "{} ({} with ties broken at random)",
            target.rank,
            target.expected_rank()
        ),
    }
}

/// Every measure of a ranking, at a cutoff and, where that is defined, over the whole catalogue; no value without a target.
pub fn measures(found: &Found, cutoff: Cutoff) -> Vec<(Measure, Option<f64>, Option<f64>)> {
    let ranks = TargetRanks::from_ranked(&found.targets).unwrap_or_default();
    let whole = |measure: Measure| measure.name().parse::<Metric>().ok()?.of(&ranks);
    Measure::ALL
        .into_iter()
        .map(|measure| (measure, Metric::at(measure, cutoff).of(&ranks), whole(measure)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn found(rank: u32, top: &[(u32, f32)]) -> Found {
        Found {
            profile: None,
            targets: vec![RankedTarget::from_counts(5, rank - 1, 0, 0)],
            top_items: top.iter().map(|top| top.0).collect(),
            top_scores: top.iter().map(|top| top.1).collect(),
        }
    }

    fn at(places: usize) -> Cutoff {
        Cutoff::new(places).unwrap()
    }

    #[test]
    fn equal_rankings_have_no_difference_and_further_places_are_no_difference() {
        let recorded = found(2, &[(3, 0.5), (5, 0.25)]);
        let longer = found(2, &[(3, 0.5), (5, 0.25), (1, 0.125)]);
        assert!(differences(&recorded, &longer, at(9)).is_empty());
        let places = places(&recorded, &longer, at(9));
        assert_eq!(
            places.iter().map(Place::is_equal).collect::<Vec<_>>(),
            [Some(true), Some(true), None]
        );
    }

    #[test]
    fn a_score_that_differs_in_its_last_bit_differs() {
        let recorded = found(2, &[(3, 0.5), (5, 0.25)]);
        let near = found(2, &[(3, f32::from_bits(0.5f32.to_bits() + 1)), (5, 0.25)]);
        let said = differences(&recorded, &near, at(9));
        assert_eq!(
            said,
            ["place 1: item 3 (0.5) is recorded, item 3 (0.50000006) was found"]
        );
        assert!(differences(&recorded, &near, at(9)).len() == 1);
    }

    #[test]
    fn targets_are_compared_with_their_ties() {
        let recorded = found(2, &[]);
        let mut tied = found(2, &[]);
        tied.targets[0].tied = 1;
        let said = differences(&recorded, &tied, at(9));
        assert_eq!(
            said,
            ["target 5: rank 2 is recorded, 2 (2.5 with ties broken at random) was found"]
        );
        assert_eq!(
            differences(&recorded, &Found::default(), at(9)),
            ["target 5 was not found"]
        );
    }

    #[test]
    fn places_beyond_the_cutoff_do_not_count() {
        let (recorded, other) = (found(2, &[(3, 0.5), (5, 0.25)]), found(2, &[(3, 0.5), (6, 0.25)]));
        assert!(differences(&recorded, &other, at(1)).is_empty());
        assert_eq!(differences(&recorded, &other, at(2)).len(), 1);
    }

    #[test]
    fn measures_are_those_of_the_targets_ranks() {
        let measures = measures(&found(4, &[]), at(3));
        let of = |measure| {
            measures
                .iter()
                .find(|found| found.0 == measure)
                .map(|found| (found.1, found.2))
        };
        assert_eq!(of(Measure::Recall), Some((Some(0.0), None)));
        assert_eq!(of(Measure::Mrr), Some((Some(0.0), Some(0.25))));
        assert_eq!(super::measures(&Found::default(), at(3))[0].1, None);
    }
}
