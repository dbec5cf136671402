//! The table: of however many rows, those in view.

use leptos::ev::{self, KeyboardEvent, MouseEvent};
use leptos::html;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::Element;

use super::visible::{ROW_HEIGHT, View, row_after_key};
use super::{Heading, Row};
use crate::address::Page;
use crate::navigate::Navigator;
use crate::state::{Effect, Memo, RwSignal, Signal};

/// The table's state in the page.
#[derive(Clone, Copy)]
struct Rows {
    navigator: Navigator,
    page: fn(u32) -> Page,
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

    /// The keyboard goes on from the row that is clicked.
    fn click(self, event: &MouseEvent) {
        let target = event.target().and_then(|target| target.dyn_into::<Element>().ok());
        let row = target.and_then(|target| target.closest("tr").ok().flatten());
        if let Some(place) = row.and_then(|row| place_of(&row.id())) {
            self.active.set(Some(place));
        }
    }

    fn key(self, event: &KeyboardEvent) {
        let active = self.active.get_untracked();
        let (count, row) = self.rows.with_untracked(|rows| {
            let row = active.and_then(|place| rows.get(place).copied());
            (rows.len(), row)
        });
        let view = self.view.get_untracked();
        if event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        match (event.key().as_str(), row) {
            ("Enter", Some(row)) => {
                let route = untrack(|| self.navigator.to((self.page)(row)));
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

/// The table.
#[component]
pub fn Grid(
    /// What the rows are.
    label: &'static str,
    /// Said where there is no row.
    nothing: &'static str,
    /// The columns.
    headings: Memo<Vec<Heading>>,
    /// Called with the name of the column whose heading is clicked.
    on_sort: Callback<&'static str>,
    /// The numbers of the rows, in their order.
    rows: Memo<Vec<u32>>,
    /// The row of a number.
    row: Callback<u32, Row>,
    /// The page of a row's number.
    page: fn(u32) -> Page,
    /// Changes with what rows show.
    #[prop(into)]
    version: Signal<u32>,
    /// Changes with what decides the order: the table is shown from its top then.
    order: Memo<u32>,
) -> impl IntoView {
    let table = Rows {
        navigator: expect_context(),
        page,
        rows,
        container: NodeRef::new(),
        view: RwSignal::new(View::default()),
        active: RwSignal::new(None),
    };
    follow_layout(table, order);
    mark_active(table);
    let count = Memo::new(move |_| rows.with(Vec::len));
    let range = Memo::new(move |_| table.view.get().rows(count.get()));
    let columns =
        Memo::new(move |_| headings.with(|headings| headings.iter().map(|heading| heading.name).collect::<Vec<_>>()));
    // Where the rows lead; but for the number it is the same for all.
    let leads = Memo::new(move |_| table.navigator.link(page(0)));
    // A row that stays is made anew only where what it shows may have changed.
    let generation = Memo::new(move |before: Option<&u32>| {
        // To track a memo alone does not have it computed, and one that never was follows nothing.
        version.get();
        columns.with(|_| ());
        leads.with(|_| ());
        before.map_or(0, |before| before.wrapping_add(1))
    });
    let visible = Memo::new(move |_| {
        let generation = generation.get();
        let numbered = |place: usize| rows.with(|rows| rows.get(place).map(|&row| (place, row, generation)));
        range.get().filter_map(numbered).collect::<Vec<_>>()
    });
    let in_view = move |(place, number, _): (usize, u32, u32)| row_view(table, place, number, row.run(number));
    let above = move || format!("{}px", range.get().start as f64 * ROW_HEIGHT);
    let below = move || {
        format!(
            "{}px",
            (count.get() - range.get().end.min(count.get())) as f64 * ROW_HEIGHT
        )
    };
    let is_empty = move || count.get() == 0;
    let heads = move || headings.with(|headings| headings.iter().map(|heading| head(heading, on_sort)).collect_view());
    view! {
        <div class="rows" node_ref=table.container on:scroll=move |_| table.measure()>
            <table
                role="grid"
                tabindex="0"
                aria-label=label
                aria-rowcount=move || { count.get() + 1 }
                aria-activedescendant=move || table.active.get().map(row_id)
                on:keydown=move |event| table.key(&event)
            >
                <thead>
                    <tr aria-rowindex="1">{heads}</tr>
                </thead>
                <tbody on:click=move |event| table.click(&event)>
                    <tr class="spacer" aria-hidden="true"><td style:height=above></td></tr>
                    <For each=move || visible.get() key=|key| *key children=in_view />
                    <tr class="spacer" aria-hidden="true"><td style:height=below></td></tr>
                </tbody>
            </table>
            <Show when=is_empty>
                <p class="faint">{nothing}</p>
            </Show>
        </div>
    }
}

/// Marks the row that the keyboard is at. Rows follow nothing by themselves: a quick scroll makes a dozen of them in a frame.
fn mark_active(table: Rows) {
    Effect::new(move |before: Option<Option<usize>>| {
        let active = table.active.get();
        for (place, is_active) in [(before.flatten(), "false"), (active, "true")] {
            let row = place.and_then(|place| document().get_element_by_id(&row_id(place)));
            if let Some(row) = row {
                // Refused is only a name that is none.
                _ = row.set_attribute("aria-selected", is_active);
            }
        }
        active
    });
}

/// Measures the table when its place changes, and shows it from the top when its order does.
fn follow_layout(table: Rows, order: Memo<u32>) {
    Effect::new(move |_| {
        table.container.track();
        request_animation_frame(move || table.measure());
    });
    let listener = window_event_listener(ev::resize, move |_| table.measure());
    on_cleanup(move || listener.remove());
    Effect::new(move |before: Option<()>| {
        order.get();
        if before.is_some() {
            table.active.set(None);
            table.scroll(0.0);
        }
    });
}

/// A heading that sorts.
fn head(heading: &Heading, on_sort: Callback<&'static str>) -> AnyView {
    let Heading {
        name,
        text,
        explanation,
        sort,
    } = *heading;
    let arrow = match sort {
        "ascending" => "▲",
        "descending" => "▼",
        _ => "",
    };
    view! {
        <th scope="col" aria-sort=sort>
            <button type="button" title=explanation on:click=move |_| on_sort.run(name)>
                {text}
                " "
                <span class="arrow" aria-hidden="true">{arrow}</span>
            </button>
        </th>
    }
    .into_any()
}

fn row_view(table: Rows, place: usize, number: u32, row: Row) -> AnyView {
    let Row { name, note, cells } = row;
    let cell = |(text, class): (String, &'static str)| view! { <td class=class>{text}</td> };
    let is_active = table.active.get_untracked() == Some(place);
    let link = untrack(move || table.navigator.link((table.page)(number)));
    view! {
        <tr id=row_id(place) aria-rowindex=(place + 2).to_string() aria-selected=is_active.to_string()>
            <th scope="row">
                <a tabindex="-1" dir="auto" href=link>{name}</a>
                " "
                <span class="faint" dir="auto">{note}</span>
            </th>
            {cells.into_iter().map(cell).collect_view()}
        </tr>
    }
    .into_any()
}

fn row_id(place: usize) -> String {
    format!("{ROW_ID}{place}")
}

/// The place of the row with an id.
fn place_of(id: &str) -> Option<usize> {
    id.strip_prefix(ROW_ID)?.parse().ok()
}

/// What the ids of rows begin with.
const ROW_ID: &str = "row-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_its_id() {
        assert_eq!(
            (place_of(&row_id(0)), place_of(&row_id(19_999))),
            (Some(0), Some(19_999))
        );
        assert_eq!((place_of(""), place_of("row-x"), place_of("7")), (None, None, None));
    }
}
