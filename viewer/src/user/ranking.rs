//! The ranking, and the history that is masked in it.

use eval_core::report::{Found, Interaction};
use leptos::prelude::*;

use super::items::{ItemTitle, Items};
use super::{Listed, listed};

/// The best items with their scores, the targets marked.
#[component]
pub fn Ranking(
    /// What was found.
    found: Found,
    /// The page's items.
    items: Items,
) -> impl IntoView {
    if found.targets.is_empty() && found.top_items.is_empty() {
        return view! { <p class="faint">"The report has no ranking of this profile."</p> }.into_any();
    }
    let target = |target: eval_core::scores::RankedTarget| {
        let tied = match target.tied {
            0 => String::new(),
            tied => format!(", {tied} the same"),
        };
        let standing = format!("rank {} ({} items score higher{tied})", target.rank, target.above);
        view! {
            <li>
                <strong class="target-rank">{standing}</strong>
                " "
                <span dir="auto">{move || items.title(target.item)}</span>
            </li>
        }
    };
    let listed = listed(&found);
    let best = found.top_items.len() as u32;
    let targets = found.targets.into_iter().map(target).collect_view();
    let row = |listed: Listed| {
        let Listed {
            rank,
            item,
            score,
            is_target,
        } = listed;
        let (is_apart, class) = (rank > best, if is_target { "target" } else { "" });
        let score = score.map_or_else(|| "–".to_owned(), |score| format!("{score:.4}"));
        view! {
            <tr class=class class:apart=is_apart>
                <td>{rank}</td>
                <th scope="row">
                    <ItemTitle items item />
                    {is_target.then(|| view! { <span class="mark">"target"</span> })}
                </th>
                <td>{score}</td>
            </tr>
        }
    };
    view! {
        <ul class="targets">{targets}</ul>
        <div class="scroll">
            <table class="ranking">
                <caption>"The best items, history masked. A target behind them is listed with its rank."</caption>
                <thead>
                    <tr>
                        <th scope="col">"Rank"</th>
                        <th scope="col">"Item"</th>
                        <th scope="col">"Score"</th>
                    </tr>
                </thead>
                <tbody>{listed.into_iter().map(row).collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}

/// The history as cards, oldest first.
#[component]
pub fn History(
    /// The interactions.
    history: Vec<Interaction>,
    /// The page's items.
    items: Items,
) -> impl IntoView {
    if history.is_empty() {
        return view! { <p class="faint">"The history is empty."</p> }.into_any();
    }
    let card = |interaction: Interaction| {
        let Interaction { item, rating, review } = interaction;
        view! {
            <li class="card">
                <ItemTitle items item />
                {rating.map(|rating| view! { <p class="rating">{format!("Rating {rating}")}</p> })}
                {review.map(|review| view! { <p class="review" dir="auto">{review}</p> })}
            </li>
        }
    };
    view! { <ol class="cards">{history.into_iter().map(card).collect_view()}</ol> }.into_any()
}
