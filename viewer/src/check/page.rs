//! The page, and how its parts belong together.

use eval_core::Cutoff;
use eval_core::metrics::Measure;
use eval_core::report::{Found, Manifest};
use eval_core::scores::ScoredItem;
use leptos::ev;
use leptos::prelude::*;

use super::outcome::{Place, differences, measures, places, standing};
use super::settings::{Mask, chosen_checkpoint, cutoff, parameter, vector_place, with_vectors};
use crate::address::{Page, Route};
use crate::controls::{Choice, vectors_view};
use crate::load::Source;
use crate::navigate::Navigator;
use crate::neighbours::neighbours;
use crate::state::{Effect, Loaded, Memo, Signal, StoredValue};
use crate::user::{Items, Profile, Record};
use crate::users::shown::parameter::CHECKPOINT;
use crate::worker::{Vectors, VectorsState, bytes_of};

/// Vectors of up to so many bytes are read without being asked for.
const READ_UNASKED_BYTES: usize = 32 << 20;

/// So many differences are told one by one.
const TOLD: usize = 5;

/// So many places are listed.
const MOST_PLACES: usize = 200;

/// A user's ranking, made anew from the stored vectors.
#[component]
pub fn CheckPage(
    /// The report.
    source: Source,
    /// The user's number.
    user: usize,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let count = source.manifest().users.count;
    let of_address = source.clone();
    let checkpoint = Memo::new(move |before: Option<&Result<usize, String>>| {
        let route = navigator.route();
        match before {
            // The address of the next page says nothing about this one.
            Some(before) if route.page != Page::Check(user) => before.clone(),
            _ => chosen_checkpoint(route.parameters.get(CHECKPOINT), of_address.manifest()),
        }
    });
    let of_record = source.clone();
    let record = Loaded::new(move || {
        let (source, checkpoint) = (of_record.clone(), checkpoint.get());
        async move {
            let record = Record::read(&source, user, checkpoint?).await;
            record.map_err(|error| error.to_string())
        }
    });
    let items = Items::new(source.clone());
    let content = move || match record.get() {
        None => view! { <p class="faint" role="status">"Loading the user …"</p> }.into_any(),
        Some(Err(problem)) => {
            let others =
                navigator.route().parameters.get(CHECKPOINT).is_some() && !with_vectors(source.manifest()).is_empty();
            let link = others.then(|| {
                let route = Route::new(&navigator.route().run, Page::Check(user));
                view! { <p><a href=route.to_string()>"Check a checkpoint that has vectors"</a></p> }
            });
            view! { <p class="problem" role="alert">{problem}</p> {link} }.into_any()
        }
        Some(Ok(record)) => {
            let checkpoint = checkpoint.get_untracked().unwrap_or_default();
            view! { <Check source=source.clone() record checkpoint items /> }.into_any()
        }
    };
    view! {
        {neighbours(Page::Users, user, count, Page::Check, Some(("Profile and history", Page::User(user))))}
        {content}
        <p class="problem" role="alert">{move || items.problem.get()}</p>
    }
    .into_any()
}

/// What was found anew for what the page is set to.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    found: Found,
    took_ms: f64,
    cutoff: Cutoff,
}

/// A user whose record is there.
#[component]
fn Check(source: Source, record: Record, checkpoint: usize, items: Items) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let vectors = expect_context::<Vectors>();
    let user = record.user;
    let (history, targets): (Vec<u32>, Vec<u32>) = {
        let user = record.user();
        (
            user.history.iter().map(|interaction| interaction.item).collect(),
            user.targets,
        )
    };
    let result = StoredValue::new(record.result());
    items.want(history.iter().chain(&targets).copied());

    let [named_profile, named_cutoff, unmasked, order] = [
        parameter::PROFILE,
        parameter::CUTOFF,
        parameter::UNMASKED,
        parameter::ORDER,
    ]
    .map(|name| navigator.parameter(name));
    let profiles = result.with_value(Profile::all);
    let known = profiles.clone();
    let profile = Memo::new(move |_| {
        let named = named_profile.get().and_then(|named| Profile::parse(&named));
        named
            .filter(|named| known.contains(named))
            .unwrap_or(Profile::Generated(0))
    });
    let recorded = Memo::new(move |_| {
        let profile = profile.get();
        result.with_value(|result| profile.found(result).cloned().unwrap_or_default())
    });
    let places_shown = Memo::new(move |_| recorded.with(|recorded| cutoff(named_cutoff.get().as_deref(), recorded)));
    let length = history.len();
    let mask = Memo::new(move |_| Mask::read(unmasked.get().as_deref(), order.get().as_deref(), length));
    let state = {
        let source = source.clone();
        Memo::new(move |_| vectors.state(&source, checkpoint))
    };
    let file = source
        .manifest()
        .checkpoints
        .get(checkpoint)
        .and_then(|found| Some(found.embeddings.as_ref()?.items.clone()));
    let bytes = file.as_ref().map_or(0, bytes_of);
    let read = {
        let source = source.clone();
        Callback::new(move |()| vectors.read(source.clone(), checkpoint))
    };
    if bytes <= READ_UNASKED_BYTES && vectors.state(&source, checkpoint) == VectorsState::Absent {
        read.run(());
    }
    let vector = {
        let source = source.clone();
        Loaded::new(move || {
            let (source, profile) = (source.clone(), profile.get());
            async move { vector_of(&source, checkpoint, user, profile).await }
        })
    };
    let items_masked = history.clone();
    let similarity = source.manifest().similarity;
    let outcome = Loaded::new(move || {
        let (is_ready, vector, cutoff) = (state.get() == VectorsState::Ready, vector.get(), places_shown.get());
        let masked = mask.with(|mask| mask.items(&items_masked));
        let targets = targets.clone();
        async move {
            let (Some(vector), Some(cutoff), true) = (vector, cutoff, is_ready) else {
                return Ok(None);
            };
            let (found, took_ms) = vectors.rank(&vector?, masked, targets, cutoff, similarity).await?;
            Ok::<_, String>(Some(Outcome { found, took_ms, cutoff }))
        }
    });
    Effect::new(move |_| {
        if let Some(Ok(Some(outcome))) = outcome.get() {
            let shown = outcome.found.top_items.iter().take(MOST_PLACES).copied();
            items.want(shown.chain(recorded.with_untracked(|recorded| recorded.top_items.clone())));
        }
    });
    let shown = move || match outcome.get() {
        Some(Ok(Some(outcome))) => {
            let is_whole = mask.with_untracked(Mask::is_whole);
            recorded.with_untracked(|recorded| outcome_view(recorded, &outcome, is_whole, items))
        }
        Some(Err(problem)) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
        _ => ().into_any(),
    };
    let absence = move || {
        vectors.worker.absence.get().map(|reason| {
            let said = format!(
                "This browser gives the page no worker ({reason}): the page computes by itself, and may halt meanwhile."
            );
            view! { <p class="faint" id="no-worker">{said}</p> }
        })
    };
    view! {
        <section>
            <h2>{format!("Live check of user {user}")}</h2>
            <p class="faint explained">
                "The browser ranks all items again, from the vectors in the report. Nothing changed, the ranks and scores are the \
                 recorded ones to the last bit. Change what is masked, or how many places count, and see what becomes of them."
            </p>
            <Settings manifest=source.manifest().clone() checkpoint profile profiles places_shown />
            <HistoryMask history mask items />
        </section>
        {move || vectors_view(state.get(), bytes, read)}
        {absence}
        {shown}
    }
    .into_any()
}

/// The vector of a user's profile, in bytes.
async fn vector_of(source: &Source, checkpoint: usize, user: usize, profile: Profile) -> Result<Vec<u8>, String> {
    let found = source.manifest().checkpoints.get(checkpoint);
    let place =
        found.and_then(|found| vector_place(found.embeddings.as_ref()?, found.profiles_per_user, user, profile));
    let (file, range) = place.ok_or_else(|| format!("The report has no vector of the {}.", profile.name()))?;
    let part = source.part(&file.file, range).await;
    part.map_err(|error| error.to_string())
}

/// Which checkpoint, profile and number of places.
#[component]
fn Settings(
    manifest: Manifest,
    checkpoint: usize,
    profile: Memo<Profile>,
    profiles: Vec<Profile>,
    places_shown: Memo<Option<Cutoff>>,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let named = |number: usize| {
        let found = &manifest.checkpoints[number];
        (found.name.clone(), format!("{}, update {}", found.name, found.update))
    };
    let checkpoints = with_vectors(&manifest).into_iter().map(named).collect();
    let chosen = manifest.checkpoints[checkpoint].name.clone();
    let names = profiles
        .iter()
        .map(|profile| (profile.to_string(), profile.name()))
        .collect();
    let set = move |name: &'static str| Callback::new(move |value: String| navigator.set(name, Some(&value)));
    let most = manifest.items.count;
    view! {
        <div class="toolbar">
            <Choice label="Checkpoint" options=checkpoints chosen=Signal::derive(move || chosen.clone()) on_choice=set(CHECKPOINT) />
            <Choice label="Profile" options=names chosen=Signal::derive(move || profile.get().to_string()) on_choice=set(parameter::PROFILE) />
            <label class="choice">
                <span>"Places that count, k"</span>
                <input
                    type="number"
                    min="1"
                    max=most.to_string()
                    prop:value=move || places_shown.get().map_or_else(String::new, |places| places.to_string())
                    on:change=move |event| navigator.set(parameter::CUTOFF, Some(&event_target_value(&event)))
                />
            </label>
        </div>
    }
    .into_any()
}

/// The history, of which each item can be masked or not.
#[component]
fn HistoryMask(history: Vec<u32>, mask: Memo<Mask>, items: Items) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    if history.is_empty() {
        return view! { <p class="faint">"The history is empty: nothing is masked."</p> }.into_any();
    }
    let set_unmasked = move |value: Option<String>| navigator.set(parameter::UNMASKED, value.as_deref());
    let entry = |(place, item): (usize, u32)| {
        let is_masked = move || mask.with(|mask| mask.masked.get(place).copied().unwrap_or(true));
        let toggle = move |event: ev::Event| {
            set_unmasked(mask.with_untracked(|mask| mask.with(place, event_target_checked(&event))));
        };
        view! {
            <li>
                <label>
                    <input type="checkbox" prop:checked=is_masked on:change=toggle />" "
                    <span dir="auto">{move || items.title(item)}</span>
                </label>
            </li>
        }
        .into_any()
    };
    let is_reversed = move || mask.with(|mask| mask.reversed);
    let turn = move |event: ev::Event| {
        let order = event_target_checked(&event).then_some("reversed");
        navigator.set(parameter::ORDER, order);
    };
    view! {
        <fieldset class="mask">
            <legend>"History: what is ticked is masked, and is in no ranking"</legend>
            <div class="toolbar">
                <button type="button" on:click=move |_| set_unmasked(None)>"Mask all, as recorded"</button>
                <button type="button" on:click=move |_| set_unmasked(Some("all".to_owned()))>"Mask nothing"</button>
                <label><input type="checkbox" prop:checked=is_reversed on:change=turn />" From its end (the order must not matter)"</label>
            </div>
            <ol>{history.into_iter().enumerate().map(entry).collect_view()}</ol>
        </fieldset>
    }
    .into_any()
}

fn outcome_view(recorded: &Found, outcome: &Outcome, is_whole: bool, items: Items) -> AnyView {
    let Outcome { found, took_ms, cutoff } = outcome;
    let differences = differences(recorded, found, *cutoff);
    let verdict = verdict_view(&differences, is_whole);
    let target = |target: &eval_core::scores::RankedTarget| {
        let item = target.item;
        let of_record = recorded.targets.iter().find(|other| other.item == item);
        let recorded = of_record.map_or_else(|| "–".to_owned(), standing);
        let found = standing(target);
        view! { <tr><th scope="row" dir="auto">{move || items.title(item)}</th><td>{recorded}</td><td class="found">{found}</td></tr> }
    };
    let targets = found.targets.iter().map(target).collect_view();
    let rows = places(recorded, found, *cutoff);
    let left_out = rows.len().saturating_sub(MOST_PLACES);
    let is_target = |item: u32| found.targets.iter().any(|target| target.item == item);
    let rows: Vec<_> = rows
        .into_iter()
        .take(MOST_PLACES)
        .map(|place| place_row(place, &is_target, items))
        .collect();
    view! {
        <section class="outcome">
            <h2>"Outcome"</h2>
            {verdict}
            <p class="faint" id="took">{format!("All items ranked in {took_ms:.1} ms.")}</p>
            <div class="scroll" tabindex="0" role="region" aria-label="Ranks of the targets">
                <table id="targets">
                    <thead><tr><th scope="col">"Target"</th><th scope="col">"Recorded rank"</th><th scope="col">"Rank now"</th></tr></thead>
                    <tbody>{targets}</tbody>
                </table>
            </div>
            {measures_table(recorded, found, *cutoff)}
        </section>
        <section>
            <h2>"Places"</h2>
            <div class="scroll" tabindex="0" role="region" aria-label="The best items, recorded and now">
                <table class="ranking" id="places">
                    <thead>
                        <tr>
                            <th scope="col">"Rank"</th>
                            <th scope="col">"Recorded"</th>
                            <th scope="col">"Score"</th>
                            <th scope="col" class="text">"Now"</th>
                            <th scope="col">"Score"</th>
                            <th scope="col">"Equal"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
            {(left_out > 0).then(|| view! { <p class="faint">{format!("{left_out} more places are not listed.")}</p> })}
        </section>
    }
    .into_any()
}

fn verdict_view(differences: &[String], is_whole: bool) -> AnyView {
    if differences.is_empty() {
        let said = "Equal: ranks and scores are the recorded ones, to the last bit.";
        return view! { <p class="verdict gain" role="status">{said}</p> }.into_any();
    }
    let why = if is_whole { "" } else { " with another mask" };
    let told: Vec<_> = differences
        .iter()
        .take(TOLD)
        .map(|said| view! { <li>{said.clone()}</li> })
        .collect();
    let more = differences.len().saturating_sub(TOLD);
    view! {
        <p class="verdict loss" role="status">{format!("{} differences from what is recorded{why}:", differences.len())}</p>
        <ul>{told}{(more > 0).then(|| view! { <li>{format!("and {more} more")}</li> })}</ul>
    }
    .into_any()
}

fn place_row(place: Place, is_target: &dyn Fn(u32) -> bool, items: Items) -> AnyView {
    let item = |scored: Option<ScoredItem>| match scored.map(|scored| scored.item) {
        Some(item) => {
            view! { <span dir="auto" data-item=item.to_string()>{move || items.title(item)}</span> }.into_any()
        }
        None => view! { <span class="faint">"–"</span> }.into_any(),
    };
    // As many digits as it takes to tell a score from its neighbours.
    let score = |scored: Option<ScoredItem>| scored.map_or_else(|| "–".to_owned(), |scored| scored.score.to_string());
    let (sign, said) = match place.is_equal() {
        Some(true) => ("=", "equal"),
        Some(false) => ("≠", "not equal"),
        None => ("", "not recorded"),
    };
    let class = if place.found.is_some_and(|scored| is_target(scored.item)) {
        "target"
    } else {
        ""
    };
    view! {
        <tr class=class>
            <td>{place.rank}</td>
            <td class="text">{item(place.recorded)}</td>
            <td>{score(place.recorded)}</td>
            <td class="text">{item(place.found)}</td>
            <td>{score(place.found)}</td>
            <td><span aria-label=said role="img">{sign}</span></td>
        </tr>
    }
    .into_any()
}

/// Every measure of both rankings, at the cutoff and over the whole catalogue.
fn measures_table(recorded: &Found, found: &Found, cutoff: Cutoff) -> AnyView {
    let value = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.6}"));
    let rows = measures(recorded, cutoff).into_iter().zip(measures(found, cutoff));
    let row = |((measure, before, before_whole), (_, now, now_whole)): ((Measure, _, _), (Measure, _, _))| {
        let class = if (before, before_whole) == (now, now_whole) {
            ""
        } else {
            "changed"
        };
        let cells = [before, now, before_whole, now_whole].map(|found| view! { <td>{value(found)}</td> });
        view! { <tr class=class><th scope="row"><code>{measure.name()}</code></th>{cells.into_iter().collect_view()}</tr> }.into_any()
    };
    let rows = rows.map(row).collect_view();
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label="Metrics of this user">
            <table id="measures">
                <caption>"Metrics of this ranking alone"</caption>
                <thead>
                    <tr>
                        <th scope="col">"Metric"</th>
                        <th scope="col">{format!("Recorded, at {cutoff}")}</th>
                        <th scope="col">{format!("Now, at {cutoff}")}</th>
                        <th scope="col">"Recorded, whole catalogue"</th>
                        <th scope="col">"Now, whole catalogue"</th>
                    </tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}
