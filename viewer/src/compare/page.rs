//! The page, and how its parts belong together.

use std::sync::Arc;

use leptos::ev;
use leptos::prelude::*;

use super::both::{Both, both};
use super::choices::Settings;
use super::pairs::{Compared, Matched, Paired, Side};
use super::profiles::Profiles;
use super::reading::{Sides, reading};
use super::scatter::Scatter;
use super::settings::{Named, parameter};
use super::tests_table::Tests;
use crate::address::{Page, Route};
use crate::chart::{AnyDrawing, Chart};
use crate::controls::FileProgress;
use crate::follow::Reports;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::overview::all_metrics;
use crate::state::{Loaded, Memo, Signal, StoredValue};

/// So many users are listed that moved most in a direction.
const MOVED: usize = 10;

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
