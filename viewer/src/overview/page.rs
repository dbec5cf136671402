//! The overview on the page.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use eval_core::metrics::Metric;
use eval_core::report::{Checkpoint, Curves, Manifest};
use leptos::prelude::*;
use leptos::task::spawn_local;

use super::facts::thousands;
use super::{
    Cell, Difference, Ranks, Row, Table, Verdict, all_metrics, best_checkpoint, chosen_checkpoint, facts,
    leading_metric, metric_lines, tables, training_lines,
};
use crate::chart::{self, AnyDrawing, Chart, LineChart};
use crate::load::Source;
use crate::navigate::Navigator;
use crate::state::{Effect, Loaded, Memo, RwSignal, Signal};

/// So many result files are read without being asked for.
const READ_UNASKED: usize = 20;

/// So many files are on their way at a time.
const AT_A_TIME: usize = 4;

/// Weight of the past in training's curves unless the address says another.
const SMOOTHING: f64 = 0.6;

/// What was run, how good it is, and how it came to be.
#[component]
pub(crate) fn OverviewPage(
    /// The report, which may go on.
    source: Signal<Source>,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let named = navigator.parameter("checkpoint");
    let chosen = Memo::new(move |_| source.with(|source| chosen_checkpoint(source.manifest(), named.get().as_deref())));
    let run = Memo::new(move |_| source.with(|source| source.manifest().run.clone()));
    let has_checkpoints = Memo::new(move |_| source.with(|source| !source.manifest().checkpoints.is_empty()));
    let has_metrics = Memo::new(move |_| source.with(|source| !all_metrics(source.manifest()).is_empty()));
    let curves = Memo::new(move |_| source.with(|source| source.manifest().curves.clone()));
    view! {
        <section aria-labelledby="run">
            <h2 id="run" dir="auto">{move || run.get()}</h2>
            {move || source.with(|source| facts_view(source.manifest()))}
        </section>
        <section aria-labelledby="metrics">
            <div class="section-head">
                <h2 id="metrics">"Metrics"</h2>
                {move || has_checkpoints.get().then(|| view! { <CheckpointChoice source chosen /> })}
            </div>
            {move || (!has_checkpoints.get()).then(|| view! {
                <p class="faint">"No checkpoint was evaluated yet. Training writes the first before it begins, unless evaluation is off."</p>
            })}
            <p class="faint explained">
                "Mean over users, 95 % bootstrap interval, and the generated profiles less the row, with the p-value of a paired \
                 randomisation test: green is better and red worse with p < 0.05."
            </p>
            {move || {
                let tables = source.with(|source| tables(source.manifest(), chosen.get()));
                tables.into_iter().map(metric_table).collect_view()
            }}
        </section>
        {move || (has_metrics.get() && has_checkpoints.get()).then(|| view! { <LearningCurve source /> })}
        {move || chosen.get().map(|checkpoint| view! { <RankHistogram source=source.get_untracked() checkpoint /> })}
        {move || curves.get().map(|file| view! { <TrainingCurves source file /> })}
    }
}

fn facts_view(manifest: &Manifest) -> AnyView {
    let fact = |(name, value): (&'static str, String)| view! { <div><dt>{name}</dt><dd dir="auto">{value}</dd></div> };
    let setting = |(name, value): (&String, &String)| {
        view! { <div><dt><code>{name.clone()}</code></dt><dd dir="auto">{value.clone()}</dd></div> }
    };
    let settings = (!manifest.config.is_empty()).then(|| {
        view! {
            <details>
                <summary>{format!("All {} settings", manifest.config.len())}</summary>
                <dl class="facts settings">{manifest.config.iter().map(setting).collect_view()}</dl>
            </details>
        }
    });
    view! {
        <dl class="facts">{facts(manifest).into_iter().map(fact).collect_view()}</dl>
        {settings}
    }
    .into_any()
}

/// Which checkpoint the tables are about.
#[component]
fn CheckpointChoice(source: Signal<Source>, chosen: Memo<Option<usize>>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let named = navigator.parameter("checkpoint");
    let options = move || {
        let source = source.get();
        let best = best_checkpoint(source.manifest());
        let checkpoints = source.manifest().checkpoints.iter().enumerate();
        let option = |(place, checkpoint): (usize, &Checkpoint)| {
            let remark = if best == Some(place) { " (best)" } else { "" };
            let label = format!("{}, update {}{remark}", checkpoint.name, checkpoint.update);
            view! {
                <option value=checkpoint.name.clone() prop:selected=move || chosen.get() == Some(place)>{label}</option>
            }
        };
        checkpoints.map(option).collect_view()
    };
    let missing = move || {
        let named = named.get()?;
        let is_known = |source: &Source| {
            source
                .manifest()
                .checkpoints
                .iter()
                .any(|checkpoint| checkpoint.name == named)
        };
        (!source.with(is_known)).then(|| {
            view! { <p class="problem" role="alert">{format!("This report has no checkpoint “{named}”: the best is shown.")}</p> }
        })
    };
    view! {
        <label>
            "Checkpoint "
            <select on:change=move |event| navigator.set("checkpoint", Some(&event_target_value(&event)))>{options}</select>
        </label>
        {missing}
    }
}

fn metric_table(table: Table) -> AnyView {
    let head = |name| view! { <th scope="col">{name}</th> };
    let row = |row: Row| {
        let cells = row.cells.into_iter().map(metric_cell).collect_view();
        view! { <tr><th scope="row" dir="auto">{row.name}</th>{cells}</tr> }
    };
    let label = format!("Metrics over the {}", table.caption);
    let caption = format!("Over the {}", table.caption);
    view! {
        // It scrolls sideways on a narrow screen, so the keyboard must reach it.
        <div class="scroll" tabindex="0" role="region" aria-label=label>
            <table class="metrics">
                <caption>{caption}</caption>
                <thead><tr><th scope="col">"Ranked with"</th>{table.columns.into_iter().map(head).collect_view()}</tr></thead>
                <tbody>{table.rows.into_iter().map(row).collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}

fn metric_cell(cell: Option<Cell>) -> AnyView {
    let Some(Cell {
        mean,
        interval,
        highest,
        difference,
    }) = cell
    else {
        return view! { <td class="faint">"–"</td> }.into_any();
    };
    let difference = difference.map(|Difference { mean, p, verdict }| {
        let class = match verdict {
            Verdict::Better => "gain",
            Verdict::Worse => "loss",
            Verdict::Open => "faint",
        };
        view! { <small class=format!("difference {class}")>{mean}" "<span class="p">{p}</span></small> }
    });
    view! {
        <td>
            <span class="mean" class:highest=highest>{mean}</span>" "
            <small class="interval">{interval}</small>" "
            {difference}
        </td>
    }
    .into_any()
}

/// A metric by update.
#[component]
fn LearningCurve(source: Signal<Source>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let named = navigator.parameter("metric");
    let metrics = Memo::new(move |_| source.with(|source| all_metrics(source.manifest())));
    let metric = Memo::new(move |_| {
        let named = named.get().and_then(|named| named.parse::<Metric>().ok());
        let named = named.filter(|named| metrics.with(|metrics| metrics.contains(named)));
        named.or_else(|| source.with(|source| leading_metric(source.manifest())))
    });
    let drawing = Memo::new_with_compare(
        move |_| {
            let lines = |metric| source.with(|source| metric_lines(source.manifest(), metric));
            let lines = metric.get().map_or_else(Vec::new, lines);
            Arc::new(LineChart::new("update", lines, |value| format!("{value:.4}"))) as AnyDrawing
        },
        |_, _| true,
    );
    let option = move |known: Metric| {
        let name = known.to_string();
        view! { <option value=name.clone() prop:selected=move || metric.get() == Some(known)>{name.clone()}</option> }
    };
    view! {
        <section aria-labelledby="learning">
            <div class="section-head">
                <h2 id="learning">"Learning curve"</h2>
                <label>
                    "Metric "
                    <select on:change=move |event| navigator.set("metric", Some(&event_target_value(&event)))>
                        {move || metrics.get().into_iter().map(option).collect_view()}
                    </select>
                </label>
            </div>
            <Chart title="Mean over users with 95 % interval, by update" drawing=drawing height=280.0 />
            <details>
                <summary>"The same as a table"</summary>
                {move || metric.get().map(|metric| source.with(|source| line_table(source.manifest(), metric)))}
            </details>
        </section>
    }
}

/// The learning curve in numbers, a row a checkpoint.
fn line_table(manifest: &Manifest, metric: Metric) -> AnyView {
    let chart = LineChart::new("update", metric_lines(manifest, metric), |value| format!("{value:.4}"));
    let readings = |place| chart::Drawing::readings(&chart, place);
    let heads = readings(0)
        .into_iter()
        .map(|reading| view! { <th scope="col" dir="auto">{reading.name}</th> });
    let row = |place| {
        let values = readings(place)
            .into_iter()
            .map(|reading| view! { <td>{reading.value}</td> })
            .collect_view();
        view! { <tr><th scope="row">{chart::Drawing::name_of(&chart, place)}</th>{values}</tr> }
    };
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label="Learning curve as a table">
            <table>
                <thead><tr><th scope="col">{metric.to_string()}</th>{heads.collect_view()}</tr></thead>
                <tbody>{(0..chart::Drawing::places(&chart)).map(row).collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}

/// How the targets' ranks are distributed. A report of many users is read when asked for.
#[component]
fn RankHistogram(source: Source, checkpoint: usize) -> impl IntoView {
    let results = source
        .manifest()
        .checkpoints
        .get(checkpoint)
        .and_then(|checkpoint| checkpoint.results.as_ref());
    let (files, users) = results.map_or((0, 0), |results| (results.files.len(), results.count));
    let ranks = RwSignal::new(Ranks::default());
    let problem = RwSignal::new(None::<String>);
    let asked = RwSignal::new(files > 0 && files <= READ_UNASKED);
    Effect::new(move |_| {
        if asked.get() {
            let next = Arc::new(AtomicUsize::new(0));
            for _ in 0..AT_A_TIME {
                spawn_local(read_ranks(source.clone(), checkpoint, next.clone(), ranks, problem));
            }
        }
    });
    let drawing = Memo::new_with_compare(move |_| Arc::new(ranks.with(Ranks::chart)) as AnyDrawing, |_, _| true);
    let read = move || ranks.with(|ranks| ranks.files_read);
    let has_ranks = Memo::new(move |_| ranks.with(Ranks::targets) > 0);
    let is_reading = move || asked.get() && read() < files && problem.get().is_none();
    let progress = move || {
        is_reading().then(|| {
            view! {
                <p class="faint">
                    <progress max=files.to_string() prop:value=move || read() as f64 aria-label="Results that were read"></progress>
                    " "{move || format!("{} of {} result files read", thousands(read() as u64), thousands(files as u64))}
                </p>
            }
        })
    };
    let ask = move || {
        (files > 0 && !asked.get()).then(|| {
            let label = format!("Read the ranks of {} users ({files} files)", thousands(users as u64));
            view! { <button type="button" on:click=move |_| asked.set(true)>{label}</button> }
        })
    };
    view! {
        <section aria-labelledby="ranks">
            <h2 id="ranks">"Ranks of the targets"</h2>
            {(files == 0).then(|| view! { <p class="faint">"This report has only the metrics of this checkpoint, not what was found for each user."</p> })}
            {ask}
            {progress}
            {move || problem.get().map(|problem| view! { <p class="problem" role="alert">{problem}</p> })}
            {move || has_ranks.get().then(|| view! {
                <Chart title="Share of targets by rank; bins double in width" drawing=drawing height=240.0 />
            })}
        </section>
    }
}

/// Reads one result file after the other while there are any left, no other reader has failed, and the page is still there.
async fn read_ranks(
    source: Source,
    checkpoint: usize,
    next: Arc<AtomicUsize>,
    ranks: RwSignal<Ranks>,
    problem: RwSignal<Option<String>>,
) {
    let results = source
        .manifest()
        .checkpoints
        .get(checkpoint)
        .and_then(|checkpoint| checkpoint.results.as_ref());
    let files = results.map_or(0, |results| results.files.len());
    loop {
        let file = next.fetch_add(1, Ordering::Relaxed);
        let failed = problem.try_with_untracked(Option::is_some);
        if file >= files || failed != Some(false) {
            return;
        }
        match source.results(checkpoint, file).await {
            Ok(chunk) => _ = ranks.try_update(|ranks| ranks.add(&chunk)),
            Err(error) => problem.try_set(Some(error.to_string())),
        }
    }
}

/// What training logged, small charts side by side.
#[component]
fn TrainingCurves(source: Signal<Source>, file: String) -> impl IntoView {
    let read = Loaded::new(move || {
        let (source, file) = (source.get(), file.clone());
        async move {
            let curves = source.json::<Curves>(&file).await.map_err(|error| error.to_string())?;
            curves.check().map_err(|error| format!("{file}: {error}"))?;
            Ok::<_, String>(Arc::new(curves))
        }
    });
    let problem = Memo::new(move |_| read.get().and_then(Result::err));
    // Of a file that cannot be read any more the last curves stay.
    let curves = Memo::new(move |before: Option<&Option<Arc<Curves>>>| {
        let read = read.get().and_then(Result::ok);
        read.or_else(|| before.cloned().flatten())
    });
    let is_there = Memo::new(move |_| curves.with(Option::is_some));
    view! {
        <section aria-labelledby="training">
            {move || match is_there.get() {
                false => view! { <h2 id="training">"Training"</h2> }.into_any(),
                true => view! { <CurveGrid curves /> }.into_any(),
            }}
            {move || (!is_there.get() && problem.with(Option::is_none)).then(|| view! { <p class="faint">"Reading the curves …"</p> })}
            {move || problem.get().map(|problem| view! { <p class="problem" role="alert">{problem}</p> })}
        </section>
    }
}

#[component]
fn CurveGrid(curves: Memo<Option<Arc<Curves>>>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let said = navigator.parameter("smoothing");
    let weight = Memo::new(move |_| {
        let said = said.get().and_then(|said| said.parse::<f64>().ok());
        said.filter(|weight| (0.0..1.0).contains(weight)).unwrap_or(SMOOTHING)
    });
    // A chart stays, with what it is zoomed to, while its curve grows.
    let names = Memo::new(move |_| {
        curves.with(|curves| {
            let curves = curves.iter().flat_map(|curves| &curves.curves);
            curves.map(|curve| curve.name.clone()).collect::<Vec<_>>()
        })
    });
    let small = move |name: String| {
        let title = name.clone();
        let drawing = Memo::new_with_compare(
            move |_| {
                let own =
                    curves.with(|curves| curves.as_ref()?.curves.iter().find(|curve| curve.name == name).cloned());
                let lines = own.map_or_else(Vec::new, |curve| training_lines(&curve, weight.get()));
                Arc::new(LineChart::new("update", lines, chart::number)) as AnyDrawing
            },
            |_, _| true,
        );
        view! { <Chart title=title drawing=drawing height=170.0 /> }
    };
    view! {
        <div class="section-head">
            <h2 id="training">"Training"</h2>
            <label>
                "Smoothing "
                <input
                    type="range"
                    min="0"
                    max="0.99"
                    step="0.01"
                    prop:value=move || weight.get().to_string()
                    on:input=move |event| navigator.set("smoothing", Some(&event_target_value(&event)))
                />
                <output>{move || format!("{:.2}", weight.get())}</output>
            </label>
        </div>
        {move || names.with(Vec::is_empty).then(|| view! { <p class="faint">"Nothing was logged yet."</p> })}
        <div class="small-multiples">{move || names.get().into_iter().map(small).collect_view()}</div>
    }
}
