//! The metrics of both checkpoints, with paired tests.

use eval_core::metrics::Metric;
use eval_core::significance::PairedTest;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::js_sys::Uint8Array;

use super::both::Both;
use super::settings::recorded_test;
use crate::overview::{Difference, Verdict};
use crate::state::RwSignal;
use crate::worker::engine::columns;
use crate::worker::{Reply, Request, Vectors};

/// Sign patterns that a paired test draws; `langptune evaluate` draws as many.
const PERMUTATIONS: usize = 10_000;

/// The tests of one metric.
#[derive(Clone, Debug, PartialEq)]
struct Tested {
    metric: Metric,
    means: [f64; 2],
    test: PairedTest,
    ci95: [f64; 2],
    recorded: Option<PairedTest>,
}

/// The metrics of both with paired tests, which are computed beside the page.
#[component]
pub fn Tests(
    /// Both checkpoints.
    both: Both,
    /// Each metric with the users' values at the first and at the second.
    metrics: Vec<(Metric, Vec<f64>, Vec<f64>)>,
) -> impl IntoView {
    if metrics.is_empty() {
        return view! { <p class="faint">"The report names no metric, so there is none to compare; ranks are below."</p> }.into_any();
    }
    let worker = expect_context::<Vectors>().worker;
    let tested = RwSignal::new(Vec::<Tested>::new());
    let problem = RwSignal::new(None::<String>);
    let count = metrics.len();
    let seed = both
        .first
        .0
        .manifest()
        .config
        .get("seed")
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    let has_recorded = both.is_one_run();
    let of_records = both;
    spawn_local(async move {
        let checkpoints =
            [&of_records.first, &of_records.second].map(|(source, number)| &source.manifest().checkpoints[*number]);
        for (metric, first, second) in metrics {
            let bytes = Uint8Array::from(&columns(&first, &second)[..]);
            let request = Request::Test {
                permutations: PERMUTATIONS,
                seed,
            };
            let more = match worker.ask(request, Some(bytes)).await {
                Ok(Reply::Tested {
                    first,
                    second,
                    test,
                    ci95,
                }) => tested.try_update(|tested| {
                    tested.push(Tested {
                        metric,
                        means: [first, second],
                        test,
                        ci95,
                        recorded: has_recorded
                            .then(|| recorded_test(checkpoints[0], checkpoints[1], metric))
                            .flatten(),
                    });
                }),
                Ok(_) => None,
                Err(said) => {
                    problem.try_set(Some(said));
                    None
                }
            };
            // The page may be gone.
            if more.is_none() {
                return;
            }
        }
    });
    let rows = move || tested.with(|tested| tested.iter().map(test_row).collect_view());
    let waiting = move || {
        let done = tested.with(Vec::len);
        (done < count && problem.with(Option::is_none))
            .then(|| view! { <p class="faint" role="status">{format!("{done} of {count} metrics tested …")}</p> })
    };
    view! {
        <p class="faint explained">
            {format!(
                "Means over the users that both have, the difference with its 95 % bootstrap interval, and the p-value of a paired \
                 randomisation test ({PERMUTATIONS} draws, seed {seed})."
            )}
        </p>
        <div class="scroll" tabindex="0" role="region" aria-label="Metrics of both checkpoints">
            <table id="tests">
                <thead>
                    <tr>
                        <th scope="col">"Metric"</th>
                        <th scope="col">"First"</th>
                        <th scope="col">"Second"</th>
                        <th scope="col">"Difference"</th>
                        <th scope="col">"95 % interval"</th>
                        <th scope="col">"p"</th>
                        <th scope="col">"Recorded p"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
        {waiting}
        <p class="problem" role="alert">{move || problem.get()}</p>
    }
    .into_any()
}

fn test_row(tested: &Tested) -> AnyView {
    let Tested {
        metric,
        means: [first, second],
        test,
        ci95: [low, high],
        recorded,
    } = tested;
    let Difference { mean, p, verdict } = Difference::new(test);
    let class = match verdict {
        Verdict::Better => "gain",
        Verdict::Worse => "loss",
        Verdict::Open => "",
    };
    let recorded = recorded.map_or_else(|| "–".to_owned(), |test| Difference::new(&test).p);
    view! {
        <tr data-metric=metric.to_string()>
            <th scope="row"><code>{metric.to_string()}</code></th>
            <td>{format!("{first:.4}")}</td>
            <td>{format!("{second:.4}")}</td>
            <td class=class>{mean}</td>
            <td>{format!("{low:.4} to {high:.4}")}</td>
            <td>{p}</td>
            <td>{recorded}</td>
        </tr>
    }
    .into_any()
}
