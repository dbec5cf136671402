//! How recommendations spread over the catalogue: Lorenz curves, and figures that say how unequal they are.

use std::sync::Arc;

use eval_core::Cutoff;
use eval_core::exposure::{coverage, gini, lorenz};
use leptos::prelude::*;

use super::rankings::{Counted, Exposures, Lists};
use crate::chart::{AnyDrawing, Chart, Line, LineChart, Point};
use crate::state::Memo;

/// Points of a curve: one for each per cent of the items.
const POINTS: usize = 101;

/// What one kind of top lists does with the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// What the lists are of.
    pub lists: Lists,
    /// The share of items that stand in any list.
    pub coverage: f64,
    /// The Gini coefficient of the items' counts.
    pub gini: f64,
}

/// The figures of all kinds of lists.
pub fn spreads(counted: &Counted, cutoff: Cutoff) -> Vec<Spread> {
    let spread = |lists: Lists| {
        let counts = counted.counts(&lists, cutoff)?;
        Some(Spread {
            coverage: coverage(counts),
            gini: gini(counts),
            lists,
        })
    };
    counted.lists().into_iter().filter_map(spread).collect()
}

/// The Lorenz curves of all kinds of lists, in per cent.
pub fn curves(counted: &Counted, cutoff: Cutoff) -> Vec<Line> {
    let line = |(series, lists): (usize, Lists)| {
        let counts = counted.counts(&lists, cutoff)?;
        let points = lorenz(counts, POINTS).into_iter().map(|[items, places]| Point {
            x: items * 100.0,
            y: places * 100.0,
            interval: None,
        });
        let class = match lists {
            Lists::Baseline(_) => "dashed",
            _ => "",
        };
        Some(Line {
            name: lists.name(),
            series,
            class,
            points: points.collect(),
        })
    };
    counted.lists().into_iter().enumerate().filter_map(line).collect()
}

/// The curves and figures on the page.
#[component]
pub fn SpreadView(
    /// How often items are shown.
    exposures: Exposures,
    /// How long a top list is taken to be.
    cutoff: Memo<Option<Cutoff>>,
) -> impl IntoView {
    let drawing = Memo::new_with_compare(
        move |_| {
            let lines = exposures.with(|counted| cutoff.get().map_or_else(Vec::new, |cutoff| curves(counted, cutoff)));
            Arc::new(LineChart::new("% of items", lines, |value| format!("{value:.1} %"))) as AnyDrawing
        },
        |_, _| true,
    );
    let row = |spread: Spread| {
        view! {
            <tr>
                <th scope="row" dir="auto">{spread.lists.name()}</th>
                <td>{format!("{:.1} %", spread.coverage * 100.0)}</td>
                <td>{format!("{:.4}", spread.gini)}</td>
            </tr>
        }
    };
    let rows = move || {
        let spreads = exposures.with(|counted| cutoff.get().map_or_else(Vec::new, |cutoff| spreads(counted, cutoff)));
        spreads.into_iter().map(row).collect_view()
    };
    let length = move || {
        cutoff
            .get()
            .map_or_else(String::new, |cutoff| format!(" of {cutoff} items"))
    };
    view! {
        <section aria-labelledby="spread">
            <h2 id="spread">"How recommendations spread"</h2>
            <p class="faint explained">
                "Of all places in top lists"{length}", the share that the least recommended items have together (Lorenz curve). \
                 A straight line would be equal for all items: Gini 0. Gini 1 is everything for one item."
            </p>
            <Chart title="Share of places by share of items, the least recommended first" drawing=drawing height=280.0 />
            <div class="scroll" tabindex="0" role="region" aria-label="Figures of the spread">
                <table class="spread">
                    <thead>
                        <tr>
                            <th scope="col">"Top lists of"</th>
                            <th scope="col">"Items recommended"</th>
                            <th scope="col">"Gini"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
        </section>
    }
    .into_any()
}

#[cfg(test)]
mod tests {
    use super::super::rankings::samples::{counted, cutoff};
    use super::*;

    #[test]
    fn figures_and_curves_are_of_all_lists_that_are_counted() {
        let counted = counted();
        let found = spreads(&counted, cutoff(2));
        let figures: Vec<_> = found.iter().map(|spread| (spread.coverage, spread.gini)).collect();
        // Counts 2 1 0 3, 1 1 2 0 and 0 1 1 0, by hand.
        assert_eq!(figures, [(0.75, 10.0 / 24.0), (0.75, 6.0 / 16.0), (0.5, 4.0 / 8.0)]);
        let curves = curves(&counted, cutoff(2));
        let names: Vec<_> = curves
            .iter()
            .map(|line| (line.name.as_str(), line.series, line.class))
            .collect();
        let expected = [
            ("generated profiles", 0, ""),
            ("reference profiles", 1, ""),
            ("popular", 2, "dashed"),
        ];
        assert_eq!(names, expected);
        let points: Vec<_> = curves[0].points.iter().map(|point| (point.x, point.y)).collect();
        let sixth = 100.0 / 6.0;
        assert_eq!((points[0], points[4]), ((0.0, 0.0), (100.0, 100.0)));
        assert!((points[2].1 - sixth).abs() < 1e-9 && points[2].0 == 50.0, "{points:?}");
    }
}
