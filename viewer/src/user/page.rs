//! The page, and how its parts belong together.

use eval_core::report::Manifest;
use leptos::prelude::*;

use super::items::Items;
use super::profile::{ProfileText, Text};
use super::ranking::{History, Ranking};
use super::record::Record;
use super::{Other, Profile};
use crate::address::{Page, Route};
use crate::controls::Choice;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::neighbours::neighbours;
use crate::state::{Loaded, Memo, Signal, StoredValue};
use crate::users::shown::{chosen_checkpoint, parameter, with_results};

/// The parameter that chooses the profile.
const PROFILE: &str = "profile";
/// The parameter that says what the profile is compared with.
const WITH: &str = "with";

/// One user of a report.
#[component]
pub fn UserPage(
    /// The report.
    source: Source,
    /// The user's number.
    user: usize,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let count = source.manifest().users.count;
    let here = move |route: &Route| route.page == Page::User(user);
    let of_address = source.clone();
    let checkpoint = Memo::new(move |before: Option<&Result<usize, String>>| {
        let route = navigator.route();
        match before {
            // The address of the next page says nothing about this one.
            Some(before) if !here(&route) => before.clone(),
            _ => chosen_checkpoint(route.parameters.get(parameter::CHECKPOINT), of_address.manifest()),
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
        Some(Err(problem)) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
        Some(Ok(record)) => {
            let checkpoint = checkpoint.get_untracked().unwrap_or_default();
            view! { <UserRecord source=source.clone() record checkpoint items /> }.into_any()
        }
    };
    view! {
        {neighbours(Page::Users, user, count, Page::User, Some(("Live check", Page::Check(user))))}
        {content}
        <p class="problem" role="alert">{move || items.problem.get()}</p>
    }
}

/// A user whose record is there.
#[component]
fn UserRecord(source: Source, record: Record, checkpoint: usize, items: Items) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let (user, result) = (record.user(), record.result());
    let history = user.history.iter().map(|interaction| interaction.item);
    let found = result.generated.iter().chain(&result.reference);
    let ranked = found.flat_map(|found| found.top_items.iter().copied());
    items.want(history.chain(ranked).chain(user.targets.iter().copied()));

    let named = navigator.parameter(PROFILE);
    let profiles = Profile::all(&result);
    let of_result = result.clone();
    let profile = Memo::new(move |_| {
        let profile = named.get().and_then(|named| Profile::parse(&named));
        profile
            .filter(|profile| profile.found(&of_result).is_some())
            .unwrap_or(Profile::Generated(0))
    });
    let of_ranking = result.clone();
    let ranking = move || {
        let found = profile.get().found(&of_ranking).cloned().unwrap_or_default();
        view! { <Ranking found items /> }
    };
    let heading = format!("User {}", record.user);
    let has_map = source
        .manifest()
        .checkpoints
        .iter()
        .any(|checkpoint| checkpoint.map.is_some());
    let number = record.user.to_string();
    let on_map = has_map.then(|| {
        let link = move || navigator.to(Page::Map).with("user", Some(&number)).to_string();
        view! { <p><a href=link>"Show the profiles and the target on the map"</a></p> }
    });
    let id = user.id.clone();
    let history = user.history.clone();
    let is_redacted = source.manifest().redacted;
    let masked = match is_redacted {
        true => "History: left out of this report".to_owned(),
        false => format!("History: {} items, masked in the ranking", history.len()),
    };
    let prompt = user.prompt.clone();
    view! {
        <section>
            <h2>{heading} " " <span class="faint" dir="auto">{id}</span></h2>
            <Choices manifest=source.manifest().clone() checkpoint profile profiles />
            {on_map}
            <Compared source=source.clone() record=record.clone() profile />
        </section>
        <section>
            <h2>"Ranking"</h2>
            {ranking}
        </section>
        <section>
            <h2>{masked}</h2>
            {(!is_redacted).then(|| view! { <History history items /> })}
            {prompt.map(|prompt| view! {
                <details class="prompt">
                    <summary>"What the language model reads"</summary>
                    <pre dir="auto">{prompt}</pre>
                </details>
            })}
        </section>
    }
}

/// Which checkpoint and profile are shown, and what the profile is compared with.
#[component]
fn Choices(manifest: Manifest, checkpoint: usize, profile: Memo<Profile>, profiles: Vec<Profile>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let numbers = with_results(&manifest);
    let named = |&number: &usize| {
        let found = &manifest.checkpoints[number];
        (found.name.clone(), format!("{}, update {}", found.name, found.update))
    };
    let checkpoints: Vec<(String, String)> = numbers.iter().map(named).collect();
    let chosen = manifest.checkpoints[checkpoint].name.clone();
    let shown_name = chosen.clone();
    let profile_names = profiles
        .iter()
        .map(|profile| (profile.to_string(), profile.name()))
        .collect();
    let others = {
        let profiles = profiles
            .iter()
            .map(|profile| (Other::Profile(*profile).to_string(), profile.name()));
        let elsewhere = checkpoints.iter().filter(|(name, _)| *name != chosen);
        let elsewhere = elsewhere.map(|(name, shown)| {
            (
                Other::Checkpoint(name.clone()).to_string(),
                format!("checkpoint {shown}"),
            )
        });
        let nothing = (String::new(), "nothing".to_owned());
        std::iter::once(nothing).chain(profiles).chain(elsewhere).collect()
    };
    let with = navigator.parameter(WITH);
    let set = move |name: &'static str| {
        Callback::new(move |value: String| navigator.set(name, Some(value.as_str()).filter(|value| !value.is_empty())))
    };
    view! {
        <div class="toolbar">
            <Choice label="Checkpoint" options=checkpoints chosen=Signal::derive(move || shown_name.clone()) on_choice=set(parameter::CHECKPOINT) />
            <Choice label="Profile" options=profile_names chosen=Signal::derive(move || profile.get().to_string()) on_choice=set(PROFILE) />
            <Choice label="Compare with" options=others chosen=Signal::derive(move || with.get().unwrap_or_default()) on_choice=set(WITH) />
        </div>
    }
}

/// The profile, and its difference from another where one is chosen.
#[component]
fn Compared(source: Source, record: Record, profile: Memo<Profile>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let with = navigator.parameter(WITH);
    let (user, result) = (StoredValue::new(record.user()), StoredValue::new(record.result()));
    // The text of the other profile: `None` where nothing is compared.
    let other = Loaded::new(move || {
        let other = with.get().and_then(|with| Other::parse(&with));
        let (profile, source, record) = (profile.get(), source.clone(), record.clone());
        async move {
            match other {
                None => Ok(None),
                Some(other) => other_text(&source, &record, profile, &other).await.map(Some),
            }
        }
    });
    let text = move |other: Option<&str>| {
        user.with_value(|user| result.with_value(|result| Text::new(user, result, profile.get(), other)))
    };
    move || match other.get() {
        None | Some(Ok(None)) => view! { <ProfileText text=text(None) /> }.into_any(),
        Some(Ok(Some(other))) => view! { <ProfileText text=text(Some(&other)) /> }.into_any(),
        Some(Err(problem)) => view! {
            <p class="problem" role="alert">{problem}</p>
            <ProfileText text=text(None) />
        }
        .into_any(),
    }
}

async fn other_text(source: &Source, record: &Record, profile: Profile, other: &Other) -> Result<String, String> {
    let (record, profile) = match other {
        Other::Profile(other) => (record.clone(), *other),
        Other::Checkpoint(name) => {
            let checkpoint = chosen_checkpoint(Some(name), source.manifest())?;
            let other = Record::read(source, record.user, checkpoint).await;
            (other.map_err(|error| error.to_string())?, profile)
        }
    };
    let (user, result) = (record.user(), record.result());
    let text = profile.text(&user, &result).map(str::to_owned);
    text.ok_or_else(|| format!("There is no {} to compare with.", profile.name()))
}
