//! The page, and how its parts belong together.

use eval_core::report::MapFiles;
use leptos::prelude::*;
use leptos::task::spawn_local;

use super::camera::{Camera, Window, bounds};
use super::points::{Kind, Place, Points, with_map};
use super::stage::{Look, Stage, bump, stage_view};
use crate::address::{Page, Route};
use crate::controls::{Choice, OnDemand, SaveAs};
use crate::export::{Cell, Sheet};
use crate::items::known::AllItems;
use crate::items::rankings::chosen;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::reading::Reading;
use crate::state::{Effect, LocalValue, Memo, RwSignal, Signal, StoredValue};

/// So many points nearest to the middle are listed.
const NEAREST: usize = 12;

/// So many chosen points are listed; a file has all of them.
const LISTED: usize = 200;

/// Said of a report without a map.
const NO_MAP: &str = "This report has no map: it was written by an older langptune, or redacted, or nothing was evaluated yet. Train \
                      the run anew with this version to have one.";

/// Items and profiles of a report in a plane.
#[component]
pub fn MapPage(
    /// The report.
    source: Source,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let known = with_map(source.manifest());
    if known.is_empty() {
        return view! { <section><h2>"Map"</h2><p class="note">{NO_MAP}</p></section> }.into_any();
    }
    let of_address = source.clone();
    let checkpoint = Memo::new(move |before: Option<&Result<Option<usize>, String>>| {
        let route = navigator.route();
        match before {
            // The address of the next page says nothing about this one.
            Some(before) if route.page != Page::Map => before.clone(),
            _ => chosen(route.parameters.get("checkpoint"), &known, "map", of_address.manifest()),
        }
    });
    let page = move || {
        match checkpoint.get() {
        Ok(Some(checkpoint)) => map_view(&source, checkpoint),
        outcome => view! {
            <p class="problem" role="alert">{outcome.err()}</p>
            <p><a href=move || Route::new(&navigator.route().run, Page::Map).to_string()>"Show the map without these settings"</a></p>
        }
        .into_any(),
    }
    };
    page.into_any()
}

fn map_view(source: &Source, checkpoint: usize) -> AnyView {
    let manifest = source.manifest();
    let Some(files) = manifest.checkpoints[checkpoint].map.clone() else {
        return ().into_any();
    };
    let stage = stage(source, checkpoint);
    let reading = read_points(source, checkpoint, &files, stage);
    let ranks = read_ranks(source, checkpoint, stage);
    follow_marks(source, stage);
    let explained = files.explained.map(|share| format!("{:.1} %", share * 100.0));
    let stem = format!("{}-map", manifest.run);
    let counts = move || {
        stage.version.track();
        let (window, kinds) = (stage.still_window(), stage.shown_kinds());
        let all = stage
            .points
            .with_value(|points| points.all(&kinds, &|point| window.shows(point)));
        let count = |kind: Kind| all.iter().filter(|place| place.0 == kind).count();
        let counts = Kind::ALL.map(|kind| format!("{} {}", count(kind), called(kind)));
        format!("In view: {}.", counts.join(", "))
    };
    let list = move || {
        stage.version.track();
        let (window, kinds) = (stage.still_window(), stage.shown_kinds());
        let near = stage.points.with_value(|points| {
            let near = points.nearest(&kinds, window.camera.centre, f64::INFINITY, NEAREST);
            let in_view = |&place: &Place| points.get(place).is_some_and(|point| window.shows(point));
            near.into_iter().filter(in_view).collect()
        });
        list_view(stage, near)
    };
    let chosen = move || {
        stage.listed.track();
        let chosen = stage.look.with_value(|look| look.chosen.clone())?;
        Some(chosen_view(stage, chosen, &stem))
    };
    view! {
        <section>
            <h2>"Map"</h2>
            <OnDemand reading what="where items and profiles lie" />
            <OnDemand reading=stage.items.reading what="titles and popularity of all items" />
            <OnDemand reading=ranks what="the ranks, by which profiles are coloured" />
            {controls(source, checkpoint, stage)}
            {stage_view(stage)}
            {legend(stage)}
            <p class="faint explained">
                {format!(
                    "Along the horizontal axis lies {} of the variance of the items' vectors, along the vertical one {} (principal \
                     components): points that are near each other here may be far apart in the rest.",
                    explained[0],
                    explained[1],
                )}
            </p>
            <p class="faint explained" id="map-keys">
                "Arrows move the map, + and − zoom, 0 shows everything, Enter opens the point in the middle. The wheel and two \
                 fingers zoom; with Shift, or the button, one draws around points to list them."
            </p>
        </section>
        {chosen}
        <section>
            <h2>"Nearest to the middle"</h2>
            <p role="status">{counts}</p>
            {list}
        </section>
    }
    .into_any()
}

/// The state of a map whose points are to be read.
fn stage(source: &Source, checkpoint: usize) -> Stage {
    let navigator = expect_context::<Navigator>();
    let camera = untrack(move || navigator.route())
        .parameters
        .get("view")
        .and_then(Camera::parse);
    let look = Look {
        camera,
        still: camera,
        has_looked: camera.is_some(),
        size: [600.0, 400.0],
        bounds: [[-1.0; 2], [1.0; 2]],
        ..Look::default()
    };
    let stage = Stage {
        navigator,
        items: AllItems::new(source),
        points: StoredValue::new(Points::new(source.manifest().checkpoints[checkpoint].profiles_per_user)),
        look: LocalValue::new(look),
        kinds: navigator.parameter("kinds"),
        version: RwSignal::new(0),
        moved: RwSignal::new(0),
        settled: RwSignal::new(0),
        listed: RwSignal::new(0),
        is_dark: RwSignal::new(false),
        draws: RwSignal::new(false),
    };
    Effect::new(move |_| {
        stage
            .items
            .with(|known| stage.points.update_value(|points| points.colour_items(known)));
        bump(stage.version);
    });
    stage
}

fn read_points(source: &Source, checkpoint: usize, files: &MapFiles, stage: Stage) -> Reading {
    let manifest = source.manifest();
    let (items, users) = (manifest.items.count, manifest.users.count);
    let profiles = users.saturating_mul(manifest.checkpoints[checkpoint].profiles_per_user);
    let mut wanted = vec![
        (Kind::Item, files.items.clone(), items),
        (Kind::Profile, files.profiles.clone(), profiles),
    ];
    wanted.extend(files.references.clone().map(|file| (Kind::Reference, file, users)));
    let source = source.clone();
    let needed = wanted.len();
    let read = move |file: usize| {
        let (source, wanted) = (source.clone(), wanted.get(file).cloned());
        Box::pin(async move {
            let Some((kind, file, rows)) = wanted else {
                return Ok(());
            };
            let found = source.points(&file, rows).await?;
            let bounds = stage.points.try_update_value(|points| {
                points.take(kind, found.points);
                points.colour_profiles();
                bounds(Kind::ALL.iter().flat_map(|&kind| &points.layer(kind).points))
            });
            if let Some(bounds) = bounds {
                stage
                    .items
                    .with_untracked(|known| stage.points.try_update_value(|points| points.colour_items(known)));
                stage.look.try_update_value(|look| look.bounds = bounds);
                bump(stage.moved);
                bump(stage.settled);
                bump(stage.version);
            }
            Ok(())
        }) as _
    };
    Reading::new(needed, Box::new(read))
}

fn read_ranks(source: &Source, checkpoint: usize, stage: Stage) -> Reading {
    let results = source.manifest().checkpoints[checkpoint].results.as_ref();
    let needed = results.map_or(0, |results| results.files.len());
    let source = source.clone();
    let read = move |file: usize| {
        let source = source.clone();
        Box::pin(async move {
            let chunk = source.results(checkpoint, file).await?;
            let is_last = file + 1 == needed;
            stage.points.try_update_value(|points| {
                points.take_results(&chunk);
                // To put 100,000 profiles in order takes a while, so not every file does.
                if needed <= 20 || file.is_multiple_of(20) || is_last {
                    points.colour_profiles();
                }
            });
            bump(stage.version);
            Ok(())
        }) as _
    };
    let reading = Reading::new(needed, Box::new(read));
    Effect::new(move |_| {
        if reading
            .progress
            .with(|progress| progress.needed > 0 && progress.is_over())
        {
            stage.points.update_value(Points::colour_profiles);
            bump(stage.version);
        }
    });
    reading
}

/// Marks the user or the item that the address names, and looks there unless it says where to look.
fn follow_marks(source: &Source, stage: Stage) {
    let number = |name: &'static str| {
        let named = stage.navigator.parameter(name);
        Memo::new(move |_| named.get().and_then(|number| number.parse::<usize>().ok()))
    };
    let (user, item) = (number("user"), number("item"));
    let source = source.clone();
    Effect::new(move |_| {
        let (source, user) = (source.clone(), user.get());
        spawn_local(async move {
            let located = user.and_then(|user| source.manifest().users.locate(user));
            let Some((file, place)) = located else {
                return;
            };
            // A file that cannot be read leaves the user's profiles without lines.
            let found = source
                .users(file)
                .await
                .ok()
                .and_then(|chunk| Some(chunk.users.get(place)?.targets.clone()));
            stage
                .look
                .try_update_value(|look| look.targets = (user, found.unwrap_or_default()));
            bump(stage.version);
        });
    });
    Effect::new(move |_| {
        stage.version.track();
        let (user, item) = (user.get(), item.get());
        let targets = stage.look.with_value(|look| match look.targets.0 == user {
            true => look.targets.1.clone(),
            false => Vec::new(),
        });
        let targets: Vec<Place> = targets
            .into_iter()
            .map(|target| (Kind::Item, target as usize))
            .collect();
        let profiles = user.map_or_else(Vec::new, |user| stage.points.with_value(|points| points.of_user(user)));
        let lines = profiles
            .iter()
            .flat_map(|&profile| targets.iter().map(move |&target| [profile, target]));
        let lines: Vec<[Place; 2]> = lines.collect();
        let item = item.map(|item| (Kind::Item, item));
        let marked: Vec<Place> = profiles.iter().copied().chain(targets).chain(item).collect();
        let at = stage
            .points
            .with_value(|points| marked.iter().filter_map(|&place| points.get(place)).collect::<Vec<_>>());
        let is_whole = at.len() == marked.len() && (user.is_none() || !lines.is_empty());
        let camera = stage.look.try_update_value(|look| {
            let looks = !marked.is_empty() && is_whole && !look.has_looked;
            look.has_looked |= looks;
            look.marked = marked;
            look.lines = lines;
            looks.then(|| Window::around(look.size, look.bounds, &at))
        });
        match camera.flatten() {
            Some(camera) => stage.set_camera(Some(camera)),
            None => bump(stage.moved),
        }
    });
}

fn called(kind: Kind) -> &'static str {
    match kind {
        Kind::Item => "items",
        Kind::Profile => "generated profiles",
        Kind::Reference => "reference profiles",
    }
}

fn controls(source: &Source, checkpoint: usize, stage: Stage) -> AnyView {
    let navigator = stage.navigator;
    let manifest = source.manifest();
    let named = |number: usize| {
        let checkpoint = &manifest.checkpoints[number];
        (
            checkpoint.name.clone(),
            format!("{}, update {}", checkpoint.name, checkpoint.update),
        )
    };
    let options: Vec<(String, String)> = with_map(manifest).into_iter().map(named).collect();
    let chosen = named(checkpoint).0;
    let set = Callback::new(move |name: String| navigator.set("checkpoint", Some(&name)));
    let kind = move |kind: Kind| {
        let toggle = move |event| {
            let is_shown = event_target_checked(&event);
            let kinds = untrack(move || stage.shown_kinds());
            let shown = Kind::ALL.into_iter().filter(|&other| match other == kind {
                true => is_shown,
                false => kinds.contains(&other),
            });
            let names: Vec<&str> = shown.map(Kind::name).collect();
            navigator.set(
                "kinds",
                Some(names.join(",").as_str()).filter(|_| names.len() < Kind::ALL.len()),
            );
        };
        view! {
            <label>
                <input type="checkbox" prop:checked=move || stage.shown_kinds().contains(&kind) on:change=toggle />
                " "{called(kind)}
            </label>
        }
    };
    let in_view = move |_| {
        let window = untrack(move || stage.window());
        stage.choose(&|point| window.shows(point));
    };
    view! {
        <div class="toolbar">
            <Choice label="Checkpoint" options chosen=Signal::derive(move || chosen.clone()) on_choice=set />
            <div class="kinds" role="group" aria-label="What is shown">{Kind::ALL.map(kind).into_iter().collect_view()}</div>
            <div class="export" role="group" aria-label="View">
                <button type="button" aria-label="Zoom in" on:click=move |_| stage.zoom(1.5)>"+"</button>
                <button type="button" aria-label="Zoom out" on:click=move |_| stage.zoom(1.0 / 1.5)>"−"</button>
                <button type="button" on:click=move |_| stage.set_camera(None)>"Everything"</button>
                <button
                    type="button"
                    aria-pressed=move || stage.draws.get().to_string()
                    on:click=move |_| stage.draws.update(|draws| *draws = !*draws)
                >
                    "Draw around points"
                </button>
                <button type="button" on:click=in_view>"List what is in view"</button>
            </div>
        </div>
    }
    .into_any()
}

/// What shapes and colours mean.
fn legend(stage: Stage) -> AnyView {
    let entry = move |kind: Kind, says: fn([f64; 2]) -> String| {
        let gradient = move || kind.palette().gradient(stage.is_dark.get());
        let text = move || {
            stage.version.track();
            says(stage.points.with_value(|points| points.largest))
        };
        view! {
            <li>
                <span class=format!("swatch map-{}", kind.name()) style:background=gradient aria-hidden="true"></span>
                {text}
            </li>
        }
    };
    view! {
        <ul class="map-legend">
            {entry(Kind::Item, |[largest, _]| format!("items (discs) by popularity, 0 to {largest} interactions"))}
            {entry(Kind::Profile, |[_, largest]| match largest > 0.0 {
                true => format!("generated profiles (diamonds) by the target's rank, {largest} to 1"),
                false => "generated profiles (diamonds)".to_owned(),
            })}
            {entry(Kind::Reference, |_| "reference profiles (rings)".to_owned())}
        </ul>
    }
    .into_any()
}

/// Points by name, as links.
fn list_view(stage: Stage, places: Vec<Place>) -> AnyView {
    let entry = move |place: Place| {
        let name = move || stage.name(place);
        view! { <li><a dir="auto" href=move || stage.route(place).to_string()>{name}</a></li> }
    };
    view! { <ul class="mentions">{places.into_iter().map(entry).collect_view()}</ul> }.into_any()
}

fn chosen_view(stage: Stage, chosen: Vec<Place>, stem: &str) -> AnyView {
    let (count, more) = (chosen.len(), chosen.len().saturating_sub(LISTED));
    let listed = chosen.iter().copied().take(LISTED).collect();
    let sheet = Callback::new(move |()| sheet(stage, &chosen));
    let clear = move |_| {
        stage.look.update_value(|look| look.chosen = None);
        bump(stage.listed);
    };
    view! {
        <section>
            <h2>{format!("Chosen: {count} points")}</h2>
            {list_view(stage, listed)}
            {(more > 0).then(|| view! { <p class="faint">{format!("And {more} more: save them as a file.")}</p> })}
            <SaveAs stem=stem.to_owned() sheet />
            <button type="button" on:click=clear>"Clear the list"</button>
        </section>
    }
    .into_any()
}

fn sheet(stage: Stage, places: &[Place]) -> Sheet {
    let row = |points: &Points, &(kind, number): &Place| {
        let name = stage
            .items
            .with_untracked(|known| points.name((kind, number), known))
            .unwrap_or_default();
        let [x, y] = points.get((kind, number)).unwrap_or_default();
        vec![
            Cell::Text(kind.name().to_owned()),
            Cell::Number(number as f64),
            Cell::Text(name),
            Cell::Number(x),
            Cell::Number(y),
        ]
    };
    Sheet {
        columns: ["kind", "number", "name", "x", "y"].map(str::to_owned).into(),
        rows: stage
            .points
            .with_value(|points| places.iter().map(|place| row(points, place)).collect()),
    }
}
