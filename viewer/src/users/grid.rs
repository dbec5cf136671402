//! The rows in view.

use leptos::ev::{self, KeyboardEvent};
use leptos::html;
use leptos::prelude::*;

use super::loading::Loading;
use super::shown::{Shown, parameter};
use super::visible::{ROW_HEIGHT, View, row_after_key};
use crate::address::Page;
use crate::filter::Filter;
use crate::navigate::Navigator;
use crate::table::Column;

/// What decides the order of rows: when it changes, the table is shown from its top.
type Order = (Filter, (Column, bool));

/// The table's state in the page.
#[derive(Clone, Copy)]
struct Rows {
    navigator: Navigator,
    rows: Memo<Vec<u32>>,
    container: NodeRef<html::Div>,
    view: RwSignal<View>,
    /// The place of the row that the keyboard is at.
    active: RwSignal<Option<usize>>,
}

impl Rows {
    fn measure(self) {
        if let Some(container) = self.container.try_get_untracked().flatten() {
            // The heading stays in place, over the rows' first pixels.
            let height = f64::from(container.client_height()) - ROW_HEIGHT;
            self.view.try_set(View {
                top: f64::from(container.scroll_top()),
                height: height.max(0.0),
            });
        }
    }

    fn scroll(self, top: f64) {
        if let Some(container) = self.container.try_get_untracked().flatten() {
            container.set_scroll_top(top as i32);
        }
    }

    fn key(self, event: &KeyboardEvent) {
        let active = self.active.get_untracked();
        let (count, user) = self.rows.with_untracked(|rows| {
            let user = active.and_then(|place| rows.get(place).copied());
            (rows.len(), user)
        });
        let view = self.view.get_untracked();
        if event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        match (event.key().as_str(), user) {
            ("Enter", Some(user)) => {
                let route = untrack(|| self.navigator.to(Page::User(user as usize)));
                self.navigator.go(&route);
            }
            (key, _) => {
                let Some(row) = row_after_key(key, active, count, view.page()) else {
                    return;
                };
                self.active.set(Some(row));
                if let Some(top) = view.top_to_show(row) {
                    self.scroll(top);
                }
            }
        }
        event.prevent_default();
    }
}

/// The table: of however many rows, those in view.
#[component]
pub fn Grid(
    /// The table.
    loading: StoredValue<Loading>,
    /// Changes with the table.
    version: RwSignal<u32>,
    /// The users that match, in their order.
    rows: Memo<Vec<u32>>,
    /// What the table is set to.
    shown: Memo<Shown>,
    /// What decides the order.
    order: Memo<Order>,
) -> impl IntoView {
    let table = Rows {
        navigator: expect_context(),
        rows,
        container: NodeRef::new(),
        view: RwSignal::new(View::default()),
        active: RwSignal::new(None),
    };
    follow_layout(table, order);
    let count = Memo::new(move |_| rows.with(Vec::len));
    let range = Memo::new(move |_| table.view.get().rows(count.get()));
    let columns = Memo::new(move |_| shown.with(|shown| shown.columns.clone()));
    // A row that stays is made anew only where what it shows may have changed.
    let generation = Memo::new(move |before: Option<&u32>| {
        version.track();
        columns.track();
        before.map_or(0, |before| before.wrapping_add(1))
    });
    let visible = Memo::new(move |_| {
        let generation = generation.get();
        let numbered = |place: usize| rows.with(|rows| rows.get(place).map(|&user| (place, user, generation)));
        range.get().filter_map(numbered).collect::<Vec<_>>()
    });
    let row = move |(place, user, _): (usize, u32, u32)| {
        view! { <UserRow table loading columns place user /> }
    };
    let above = move || format!("{}px", range.get().start as f64 * ROW_HEIGHT);
    let below = move || {
        format!(
            "{}px",
            (count.get() - range.get().end.min(count.get())) as f64 * ROW_HEIGHT
        )
    };
    let is_empty = move || count.get() == 0;
    let heads = move || {
        columns
            .get()
            .into_iter()
            .map(|column| view! { <Head column shown /> })
            .collect_view()
    };
    view! {
        <div class="rows" node_ref=table.container on:scroll=move |_| table.measure()>
            <table
                role="grid"
                tabindex="0"
                aria-label="Users"
                aria-rowcount=move || { count.get() + 1 }
                aria-activedescendant=move || table.active.get().map(row_id)
                on:keydown=move |event| table.key(&event)
            >
                <thead>
                    <tr aria-rowindex="1">{heads}</tr>
                </thead>
                <tbody>
                    <tr class="spacer" aria-hidden="true"><td style:height=above></td></tr>
                    <For each=move || visible.get() key=|key| *key children=row />
                    <tr class="spacer" aria-hidden="true"><td style:height=below></td></tr>
                </tbody>
            </table>
            <Show when=is_empty>
                <p class="faint">"No user matches the filter."</p>
            </Show>
        </div>
    }
}

/// Measures the table when its place changes, and shows it from the top when its order does.
fn follow_layout(table: Rows, order: Memo<Order>) {
    Effect::new(move |_| {
        table.container.track();
        request_animation_frame(move || table.measure());
    });
    let listener = window_event_listener(ev::resize, move |_| table.measure());
    on_cleanup(move || listener.remove());
    Effect::new(move |before: Option<()>| {
        order.track();
        if before.is_some() {
            table.active.set(None);
            table.scroll(0.0);
        }
    });
}

/// A heading that sorts.
#[component]
fn Head(column: Column, shown: Memo<Shown>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let sort = move |_| {
        let sort = shown.with_untracked(|shown| shown.sort_after_click(column));
        navigator.set(parameter::SORT, Some(&sort));
    };
    let state = move || shown.with(|shown| shown.aria_sort(column));
    let arrow = move || match state() {
        "ascending" => "▲",
        "descending" => "▼",
        _ => "",
    };
    view! {
        <th scope="col" aria-sort=state>
            <button type="button" title=column.explanation() on:click=sort>
                {column.heading()}
                <span class="arrow" aria-hidden="true">{arrow}</span>
            </button>
        </th>
    }
}

#[component]
fn UserRow(
    table: Rows,
    loading: StoredValue<Loading>,
    columns: Memo<Vec<Column>>,
    place: usize,
    user: u32,
) -> impl IntoView {
    let cell = |column: Column| match column {
        Column::User => {
            let id = loading.with_value(|loading| loading.table().id(user).to_owned());
            view! {
                <th scope="row">
                    <a tabindex="-1" href=move || table.navigator.link(Page::User(user as usize))>{user}</a>
                    " "
                    <span class="faint" dir="auto">{id}</span>
                </th>
            }
            .into_any()
        }
        column => {
            let value = loading.with_value(|loading| loading.table().value(column, user));
            let side = match (column, value) {
                (Column::Delta, Some(value)) if value < 0.0 => "gain",
                (Column::Delta, Some(value)) if value > 0.0 => "loss",
                _ => "",
            };
            view! { <td class=side>{column.shown(value)}</td> }.into_any()
        }
    };
    let is_active = move || table.active.get() == Some(place);
    view! {
        <tr
            id=row_id(place)
            aria-rowindex={place + 2}
            aria-selected=move || is_active().to_string()
            on:click=move |_| table.active.set(Some(place))
        >
            {columns.get_untracked().into_iter().map(cell).collect_view()}
        </tr>
    }
}

fn row_id(place: usize) -> String {
    format!("row-{place}")
}
