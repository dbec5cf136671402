//! Both profiles of a user, side by side.

use leptos::prelude::*;

use super::both::Both;
use super::pairs::Paired;
use super::settings::parameter;
use crate::load::LoadError;
use crate::navigate::Navigator;
use crate::state::{Loaded, Memo, StoredValue};
use crate::user::{Profile, ProfileText, Record, Text};

/// Both profiles of a user, side by side.
#[component]
pub fn Profiles(
    /// Both checkpoints.
    both: Both,
    /// The users that both have.
    users: StoredValue<Vec<Paired>>,
) -> impl IntoView {
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
    let sources = both;
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
