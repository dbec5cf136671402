//! For whom an item is the target, and to whom it is recommended.

use std::sync::Arc;

use leptos::prelude::*;

use super::mentions::{Mention, Mentions};
use crate::address::{Page, Route};
use crate::chart::{AnyDrawing, Chart};
use crate::controls::{OnDemand, SaveAs};
use crate::load::Source;
use crate::navigate::Navigator;
use crate::reading::Reading;
use crate::state::{Memo, RwSignal};

/// So many rankings are listed; a file has all of them.
const LISTED: usize = 100;

/// The rankings that have the item, from the results of a checkpoint.
pub fn users_view(source: &Source, checkpoint: usize, item: u32) -> AnyView {
    let results = source
        .manifest()
        .checkpoints
        .get(checkpoint)
        .and_then(|found| found.results.as_ref());
    let Some(files) = results.map(|results| results.files.len()) else {
        return view! { <p class="faint">"The report keeps nothing about single users at this checkpoint."</p> }
            .into_any();
    };
    let mentions = RwSignal::new(Mentions::new(item));
    let reading = {
        let source = source.clone();
        let read = move |file: usize| {
            let source = source.clone();
            Box::pin(async move {
                let chunk = source.results(checkpoint, file).await?;
                mentions.try_update(|mentions| mentions.add(&chunk));
                Ok(())
            }) as _
        };
        Reading::new(files, Box::new(read))
    };
    let drawing = Memo::new_with_compare(
        move |_| mentions.with(|mentions| Arc::new(mentions.chart()) as AnyDrawing),
        |_, _| true,
    );
    let stem = format!("{}-item-{item}", source.manifest().run);
    let sheet = Callback::new(move |()| mentions.with_untracked(Mentions::sheet));
    let found = move || {
        let (targets, listed) = mentions.with(|mentions| (mentions.as_target(), mentions.as_listed()));
        view! {
            <h3>{format!("The target of {} rankings", targets.len())}</h3>
            {list(targets)}
            <h3>{format!("Recommended in {} rankings", listed.len())}</h3>
            {list(listed)}
        }
    };
    let lists = move || {
        reading.asked.get().then(|| {
            view! {
                <Chart title="At which ranks generated profiles recommend it" drawing=drawing height=170.0 />
                {found}
                <SaveAs stem=stem.clone() sheet />
            }
        })
    };
    view! {
        <OnDemand reading what="the rankings of this checkpoint" />
        {lists}
    }
    .into_any()
}

fn list(mentions: Vec<Mention>) -> AnyView {
    let navigator = expect_context::<Navigator>();
    let more = mentions.len().saturating_sub(LISTED);
    let entry = move |mention: Mention| {
        let profile = mention.profile.to_string();
        let link = move || {
            let route: Route = navigator.to(Page::User(mention.user));
            route.with("profile", Some(&profile)).to_string()
        };
        let standing = format!(", {}: rank {}", mention.profile.name(), mention.rank);
        let mark = mention
            .is_target
            .then(|| view! { " "<span class="mark">"target"</span> });
        view! { <li><a href=link>{format!("User {}", mention.user)}</a>{standing}{mark}</li> }
    };
    let more = (more > 0).then(|| view! { <p class="faint">{format!("And {more} more: save them as a file.")}</p> });
    view! {
        <ul class="mentions">{mentions.into_iter().take(LISTED).map(entry).collect_view()}</ul>
        {more}
    }
    .into_any()
}
