//! The page, and how its parts belong together.

use std::sync::Arc;

use eval_core::metrics::Metric;
use eval_core::report::Manifest;
use eval_core::significance::PairedTest;
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::js_sys::Uint8Array;

use super::pairs::{Compared, Matched, Paired, Side};
use super::scatter::Scatter;
use super::settings::{Named, parameter, recorded_test};
use crate::address::{Page, Route};
use crate::chart::{AnyDrawing, Chart};
use crate::controls::{Choice, FileProgress};
use crate::follow::Reports;
use crate::load::{LoadError, Source};
use crate::navigate::Navigator;
use crate::overview::{Difference, Verdict, all_metrics};
use crate::reading::{Read, Reading};
use crate::runs;
use crate::state::{Loaded, Memo, RwSignal, Signal, StoredValue};
use crate::user::{Profile, ProfileText, Record, Text};
use crate::users::shown::{chosen_checkpoint, with_results};
use crate::worker::engine::columns;
use crate::worker::{Reply, Request, Vectors};

/// Sign patterns that a paired test draws; `langptune evaluate` draws as many.
const PERMUTATIONS: usize = 10_000;

/// So many users are listed that moved most in a direction.
const MOVED: usize = 10;

/// The two checkpoints, each with its report.
#[derive(Clone, Debug, PartialEq)]
struct Both {
    first: (Source, usize),
    second: (Source, usize),
}

impl Both {
    fn is_one_run(&self) -> bool {
        self.first.0 == self.second.0
    }

    /// What they are called, first and second; with the second's run where it is another one.
    fn names(&self) -> [String; 2] {
        let name = |(source, checkpoint): &(Source, usize)| source.manifest().checkpoints[*checkpoint].name.clone();
        match self.is_one_run() {
            true => [name(&self.first), name(&self.second)],
            false => [
                format!("{}, {}", self.first.0.manifest().run, name(&self.first)),
                format!("{}, {}", self.second.0.manifest().run, name(&self.second)),
            ],
        }
    }
}

/// Two checkpoints, user by user.
#[component]
pub fn ComparePage(
    /// The report.
    source: Source,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let reports = expect_context::<Reports>();
    let named = Memo::new(move |before: Option<&(Option<String>, Named)>| {
        let route = navigator.route();
        match before {
            // The address of the next page says nothing about this one.
            Some(before) if route.page != Page::Compare => before.clone(),
            _ => {
                let parameter = |name| route.parameters.get(name);
                let second = parameter(parameter::SECOND).or(parameter("checkpoint"));
                (
                    parameter(parameter::FIRST).map(str::to_owned),
                    Named::parse(second.unwrap_or_default()),
                )
            }
        }
    });
    let of_both = source.clone();
    let both = Loaded::new(move || {
        let (source, (first, second)) = (of_both.clone(), named.get());
        async move { both(source, first.as_deref(), second, reports).await }
    });
    let content = move || {
        match both.get() {
        None => view! { <p class="faint" role="status">"Opening the reports …"</p> }.into_any(),
        Some(Err(problem)) => view! {
            <p class="problem" role="alert">{problem}</p>
            <p><a href=move || Route::new(&navigator.route().run, Page::Compare).to_string()>"Compare without these settings"</a></p>
        }
        .into_any(),
        Some(Ok(both)) => view! { <Comparison both /> }.into_any(),
    }
    };
    view! {
        <section>
            <h2>"Compare"</h2>
            <Settings source both />
        </section>
        {content}
    }
    .into_any()
}

/// Opens what the address names. Without names it is the best checkpoint against the first with results.
async fn both(source: Source, first: Option<&str>, second: Named, reports: Reports) -> Result<Both, String> {
    let other = match &second.run {
        None => source.clone(),
        Some(run) => {
            let place = reports.runs.with_untracked(|runs| match runs {
                Some(Ok(runs)) => runs::chosen(runs, run).cloned(),
                _ => None,
            });
            let place = place.ok_or_else(|| format!("There is no run “{run}” here."))?;
            Source::open(&place.path).await.map_err(|error| error.to_string())?
        }
    };
    let second = chosen_checkpoint(second.checkpoint.as_deref(), other.manifest())?;
    let first = match first {
        Some(name) => chosen_checkpoint(Some(name), source.manifest())?,
        None => {
            let with_results = with_results(source.manifest());
            let is_other = |number: &&usize| source != other || **number != second;
            let first = with_results.iter().find(is_other).copied();
            first.map_or_else(|| chosen_checkpoint(None, source.manifest()), Ok)?
        }
    };
    Ok(Both {
        first: (source, first),
        second: (other, second),
    })
}

/// Which checkpoints, and of which run the second.
#[component]
fn Settings(source: Source, both: Loaded<Result<Both, String>>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let reports = expect_context::<Reports>();
    let chosen = Memo::new(move |before: Option<&Option<Both>>| match both.get() {
        Some(Ok(both)) => Some(both),
        _ => before.cloned().flatten(),
    });
    let options = |manifest: &Manifest| -> Vec<(String, String)> {
        let named = |number: usize| {
            let found = &manifest.checkpoints[number];
            (found.name.clone(), format!("{}, update {}", found.name, found.update))
        };
        with_results(manifest).into_iter().map(named).collect()
    };
    let name = |(source, checkpoint): &(Source, usize)| source.manifest().checkpoints[*checkpoint].name.clone();
    let [first, second] = [false, true].map(|is_second| {
        Signal::derive(move || {
            chosen.with(|both| {
                both.as_ref().map_or_else(String::new, |both| {
                    name(if is_second { &both.second } else { &both.first })
                })
            })
        })
    });
    let run_of_second = move || {
        navigator
            .route()
            .parameters
            .get(parameter::SECOND)
            .and_then(|named| Named::parse(named).run)
    };
    let set_first = Callback::new(move |value: String| navigator.set(parameter::FIRST, Some(&value)));
    let set_second = Callback::new(move |value: String| {
        let named = Named {
            run: untrack(run_of_second),
            checkpoint: Some(value),
        };
        navigator.set(parameter::SECOND, Some(&named.to_string()));
    });
    let set_run = Callback::new(move |value: String| {
        let named = Named {
            run: (!value.is_empty()).then_some(value),
            checkpoint: None,
        };
        let value = named.to_string();
        navigator.set(
            parameter::SECOND,
            Some(value.as_str()).filter(|value| !value.is_empty()),
        );
    });
    let runs = reports.runs.with_untracked(|runs| match runs {
        Some(Ok(runs)) => runs.runs.iter().map(|run| run.name.clone()).collect(),
        _ => Vec::new(),
    });
    let run_choice = (runs.len() > 1).then(|| {
        let this = (String::new(), "this run".to_owned());
        let options = std::iter::once(this).chain(runs.into_iter().map(|run| (run.clone(), run))).collect();
        view! { <Choice label="Run of the second" options chosen=Signal::derive(move || run_of_second().unwrap_or_default()) on_choice=set_run /> }
    });
    let firsts = options(source.manifest());
    let seconds = move || {
        let options = chosen.with(|both| options(both.as_ref().map_or(&source, |both| &both.second.0).manifest()));
        view! { <Choice label="Second checkpoint" options chosen=second on_choice=set_second /> }
    };
    view! {
        <div class="toolbar">
            <Choice label="First checkpoint" options=firsts chosen=first on_choice=set_first />
            {run_choice}
            {seconds}
        </div>
    }
    .into_any()
}

/// Both sides, as far as their files are there.
#[derive(Clone, Copy)]
struct Sides {
    first: StoredValue<Side>,
    second: StoredValue<Side>,
}

/// The files of both: results, and users where the reports are two.
fn reading(both: &Both, sides: Sides) -> Reading {
    let files = |(source, checkpoint): &(Source, usize)| {
        let results = source.manifest().checkpoints[*checkpoint].results.as_ref();
        results.map_or(0, |results| results.files.len())
    };
    let users = |source: &Source| {
        if both.is_one_run() {
            0
        } else {
            source.manifest().users.files.len()
        }
    };
    let counts = [
        files(&both.first),
        files(&both.second),
        users(&both.first.0),
        users(&both.second.0),
    ];
    let (first, second) = (both.first.clone(), both.second.clone());
    let read = move |mut file: usize| -> Read {
        let mut kind = 0;
        while kind < counts.len() - 1 && file >= counts[kind] {
            file -= counts[kind];
            kind += 1;
        }
        let (of, side) = match kind % 2 {
            0 => (first.clone(), sides.first),
            _ => (second.clone(), sides.second),
        };
        Box::pin(async move { read_file(of, side, file, kind >= 2).await })
    };
    Reading::new(counts.iter().sum(), Box::new(read))
}

async fn read_file(
    (source, checkpoint): (Source, usize),
    side: StoredValue<Side>,
    file: usize,
    users: bool,
) -> Result<(), LoadError> {
    match users {
        true => {
            let chunk = source.users(file).await?;
            side.try_update_value(|side| side.add_users(&chunk));
        }
        false => {
            let chunk = source.results(checkpoint, file).await?;
            side.try_update_value(|side| side.add(&chunk));
        }
    }
    Ok(())
}

/// Two checkpoints that are there.
#[component]
fn Comparison(both: Both) -> impl IntoView {
    let counts = [&both.first, &both.second].map(|(source, _)| source.manifest().users.count);
    let [first, second] = counts.map(|count| StoredValue::new(Side::new(count)));
    let sides = Sides { first, second };
    let reading = reading(&both, sides);
    let files = reading.progress.with_untracked(|progress| progress.needed);
    let ask = move || {
        (!reading.asked.get()).then(|| {
            let label = format!("Read the results of {} users ({files} files)", counts[0]);
            view! { <p><button type="button" on:click=move |_| reading.start()>{label}</button></p> }
        })
    };
    let is_over = Memo::new(move |_| reading.asked.get() && reading.progress.with(|progress| progress.is_over()));
    let of_outcome = both.clone();
    let outcome = move || {
        is_over.get().then(|| {
            let matched = match of_outcome.is_one_run() {
                true => Matched::same(counts[0]),
                false => first.with_value(|first| second.with_value(|second| Matched::by_id(first, second))),
            };
            let metrics = all_metrics(of_outcome.first.0.manifest());
            let compared =
                first.with_value(|first| second.with_value(|second| Compared::new(first, second, &matched, &metrics)));
            view! { <Outcome both=of_outcome.clone() matched compared /> }
        })
    };
    view! {
        {ask}
        <div class="status">
            {move || reading.asked.get().then(|| view! {
                <FileProgress progress=reading.progress retry=Callback::new(move |()| reading.retry()) />
            })}
        </div>
        {outcome}
    }
    .into_any()
}

/// What differs between the users of two reports, in words.
fn notes(both: &Both, matched: &Matched, compared: &Compared) -> Vec<String> {
    let mut notes = Vec::new();
    let [ours, theirs] = [&both.first.0, &both.second.0].map(Source::manifest);
    let Matched {
        only_first,
        only_second,
        pairs,
    } = matched;
    if only_first + only_second > 0 {
        notes.push(format!(
            "The users differ: {only_first} are only in the first report and {only_second} only in the second. The {} that both have \
             are compared.",
            pairs.len()
        ));
    }
    if !both.is_one_run() && (ours.redacted || theirs.redacted) {
        notes.push("A report without its users' ids can only be compared by their order: whether they are the same people is not known.".to_owned());
    }
    if ours.items.count != theirs.items.count {
        notes.push(format!(
            "The catalogues differ: {} items in the first report and {} in the second, so ranks are not out of as many.",
            ours.items.count, theirs.items.count
        ));
    }
    if compared.left_out > 0 {
        notes.push(format!(
            "{} users are left out: they have no target, or were not read.",
            compared.left_out
        ));
    }
    notes
}

/// Everything that is said of both.
#[component]
fn Outcome(both: Both, matched: Matched, compared: Compared) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let names = both.names();
    let notes: Vec<_> = notes(&both, &matched, &compared)
        .into_iter()
        .map(|note| view! { <p class="problem note" role="status">{note}</p> })
        .collect();
    if compared.users.is_empty() {
        return view! { {notes} <p class="faint">"There is no user to compare."</p> }.into_any();
    }
    let [wins, ties, losses] = compared.wins_ties_losses();
    let scatter = Arc::new(Scatter::new(names.clone(), &compared.users));
    let drawing: AnyDrawing = scatter.clone();
    let checkpoint = both.first.0.manifest().checkpoints[both.first.1].name.clone();
    let open = Callback::new(move |place: usize| {
        if let Some(user) = scatter.user(place) {
            let run = untrack(|| navigator.route()).run;
            navigator.go(&Route::new(&run, Page::User(user.user as usize)).with("checkpoint", Some(&checkpoint)));
        }
    });
    let [better, worse] =
        [true, false].map(|upwards| moved_table(&compared.moved_most(upwards, MOVED), upwards, navigator));
    let users = StoredValue::new(compared.users.clone());
    view! {
        {notes}
        <section>
            <h2 dir="auto">{format!("{} less {}", names[1], names[0])}</h2>
            <p id="wins">
                {format!("Of {} users ", compared.users.len())}
                <span class="gain">{format!("{wins} have a better rank")}</span>
                {format!(", {ties} the same and ")}
                <span class="loss">{format!("{losses} a worse one")}</span>"."
            </p>
            <Tests both=both.clone() metrics=compared.metrics />
        </section>
        <section>
            <h2>"Ranks of the best-ranked target, user by user"</h2>
            <p class="faint explained">"Below the line the second checkpoint is better. A click, or Enter, opens the user."</p>
            <Chart title="Rank at the second checkpoint against rank at the first" drawing=Signal::derive(move || drawing.clone()) height=420.0 on_choice=open />
        </section>
        <section>
            <h2>"Users that moved most"</h2>
            <div class="side-by-side">{better}{worse}</div>
        </section>
        <Profiles both users />
    }
    .into_any()
}

fn moved_table(moved: &[Paired], upwards: bool, navigator: Navigator) -> AnyView {
    let caption = if upwards { "To a better rank" } else { "To a worse rank" };
    let row = |paired: &Paired| {
        let user = paired.user;
        let choose = move |_: ev::MouseEvent| navigator.set(parameter::USER, Some(&user.to_string()));
        view! {
            <tr>
                <th scope="row"><a href=move || navigator.link(Page::User(user as usize))>{format!("User {user}")}</a></th>
                <td>{paired.before}</td>
                <td>{paired.after}</td>
                <td>{format!("{:+}", -paired.gain())}</td>
                <td><button type="button" on:click=choose aria-label=format!("Profiles of user {user}")>"Profiles"</button></td>
            </tr>
        }
        .into_any()
    };
    let rows = moved.iter().map(row).collect_view();
    let nobody = moved.is_empty().then(|| view! { <p class="faint">"Nobody."</p> });
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label=caption>
            <table class="moved">
                <caption>{caption}</caption>
                <thead>
                    <tr>
                        <th scope="col">"User"</th>
                        <th scope="col">"First"</th>
                        <th scope="col">"Second"</th>
                        <th scope="col">"Change"</th>
                        <th scope="col"><span class="unseen">"Profiles"</span></th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
            {nobody}
        </div>
    }
    .into_any()
}

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
fn Tests(both: Both, metrics: Vec<(Metric, Vec<f64>, Vec<f64>)>) -> impl IntoView {
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
    let of_records = both.clone();
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

/// Both profiles of a user, side by side.
#[component]
fn Profiles(both: Both, users: StoredValue<Vec<Paired>>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let named = navigator.parameter(parameter::USER);
    let number = navigator.parameter(parameter::PROFILE);
    let profile = Memo::new(move |_| {
        number
            .get()
            .and_then(|named| Profile::parse(&named))
            .unwrap_or(Profile::Generated(0))
    });
    // Without a choice it is the one who gained most.
    let user = Memo::new(move |_| {
        let named = named.get().and_then(|named| named.parse::<u32>().ok());
        users.with_value(|users| match named {
            Some(named) => users.iter().find(|paired| paired.user == named).copied(),
            None => users
                .iter()
                .copied()
                .max_by(|a, b| a.gain().total_cmp(&b.gain()).then(b.user.cmp(&a.user))),
        })
    });
    let names = both.names();
    let sources = both.clone();
    let records = Loaded::new(move || {
        let (both, paired) = (sources.clone(), user.get());
        async move {
            let Some(Paired { user, other, .. }) = paired else {
                return Err("No user of that number is in both reports.".to_owned());
            };
            let first = Record::read(&both.first.0, user as usize, both.first.1).await;
            let second = Record::read(&both.second.0, other as usize, both.second.1).await;
            let read = |record: Result<Record, LoadError>| record.map_err(|error| error.to_string());
            Ok::<_, String>((read(first)?, read(second)?))
        }
    });
    let shown = move || match records.get() {
        None => view! { <p class="faint" role="status">"Loading the profiles …"</p> }.into_any(),
        Some(Err(problem)) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
        Some(Ok((first, second))) => {
            let profile = profile.get();
            let (first_user, first_result) = (first.user(), first.result());
            let (second_user, second_result) = (second.user(), second.result());
            let before = profile.text(&first_user, &first_result);
            let texts = [
                Text::new(&first_user, &first_result, profile, None),
                Text::new(&second_user, &second_result, profile, before),
            ];
            let column = |(name, text): (String, Text)| {
                view! { <div><h3 dir="auto">{name}</h3><ProfileText text /></div> }.into_any()
            };
            view! { <div class="side-by-side">{names.clone().into_iter().zip(texts).map(column).collect_view()}</div> }
                .into_any()
        }
    };
    let shown_user = move || user.get().map_or_else(String::new, |paired| paired.user.to_string());
    view! {
        <section>
            <h2>"Profiles of a user"</h2>
            <div class="toolbar">
                <label class="choice">
                    <span>"User"</span>
                    <input
                        type="number"
                        min="0"
                        prop:value=shown_user
                        on:change=move |event| navigator.set(parameter::USER, Some(&event_target_value(&event)))
                    />
                </label>
                <label class="choice">
                    <span>"Profile"</span>
                    <input
                        type="number"
                        min="1"
                        prop:value=move || profile.get().to_string()
                        on:change=move |event| navigator.set(parameter::PROFILE, Some(&event_target_value(&event)))
                    />
                </label>
            </div>
            {shown}
        </section>
    }
    .into_any()
}
