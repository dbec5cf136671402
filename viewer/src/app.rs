//! The page around the pages: header, navigation, shortcuts, and the report that is open.

use std::time::Duration;

use eval_core::selfcheck;
use leptos::prelude::*;
use leptos::{ev, html};
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlInputElement};

use crate::address::{Page, Route};
use crate::check::CheckPage;
use crate::compare::ComparePage;
use crate::follow::{Reports, Shown};
use crate::item::ItemPage;
use crate::items::ItemsPage;
use crate::keys::{Command, Keys, SHORTCUTS};
use crate::load::Source;
use crate::map::MapPage;
use crate::navigate::Navigator;
use crate::overview::OverviewPage;
use crate::palette::Palette;
use crate::state::{Effect, Memo, RwSignal, Signal, StoredValue};
use crate::theme::Theme;
use crate::user::UserPage;
use crate::users::UsersPage;
use crate::users::sequence::Sequence;
use crate::worker::{Vectors, Worker};

/// The application.
#[component]
pub fn App() -> impl IntoView {
    let navigator = Navigator::new();
    provide_context(navigator);
    provide_context(Sequence::new());
    provide_context(Vectors::new(Worker::new()));
    let reports = Reports::new(navigator);
    provide_context(reports);
    let help = NodeRef::<html::Dialog>::new();
    let content = NodeRef::<html::Main>::new();
    let page = Memo::new(move |_| navigator.route().page);
    let theme = RwSignal::new(Theme::kept());
    let palette = Dialog {
        dialog: NodeRef::new(),
        is_open: RwSignal::new(false),
    };
    listen_to_keys(navigator, help, palette);
    Effect::new(move |before: Option<Page>| {
        let page = page.get();
        // Who came by keyboard goes on from the new page, not from a link that is gone.
        if before.is_some_and(|before| before != page) {
            focus(content);
        }
        page
    });
    Effect::new(move |_| document().set_title(&title(&navigator.route())));
    let shown = move || match reports.shown.get() {
        Shown::Loading => view! { <p class="faint" role="status">"Loading the report …"</p> }.into_any(),
        Shown::Problem(problem) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
        // Another page is made of the report as it is by then.
        Shown::Report(source) => (move || page_view(&page.get(), reports.displayed(&source), reports)).into_any(),
    };
    view! {
        <Header navigator reports page help content theme palette />
        <main tabindex="-1" node_ref=content>{shown}</main>
        <footer><SelfCheck /></footer>
        <Help dialog=help />
        <Palette reports theme dialog=palette.dialog is_open=palette.is_open on_help=Callback::new(move |()| show(help)) />
    }
}

/// A page of an open report. The overview follows a report that goes on; a table that one reads stays as it is.
fn page_view(page: &Page, source: Source, reports: Reports) -> AnyView {
    match page {
        Page::Overview => {
            let newest = Signal::derive(move || reports.newest.get().unwrap_or_else(|| source.clone()));
            view! { <OverviewPage source=newest /> }.into_any()
        }
        Page::Users => view! { <UsersPage source /> }.into_any(),
        Page::User(user) => view! { <UserPage source user=*user /> }.into_any(),
        Page::Items => view! { <ItemsPage source /> }.into_any(),
        Page::Item(item) => view! { <ItemPage source item=*item /> }.into_any(),
        Page::Map => view! { <MapPage source /> }.into_any(),
        Page::Compare => view! { <ComparePage source /> }.into_any(),
        Page::Check(user) => view! { <CheckPage source user=*user /> }.into_any(),
        Page::Unknown(_) => view! { <UnknownPage address=page.to_string() /> }.into_any(),
    }
}

#[component]
fn Header(
    navigator: Navigator,
    reports: Reports,
    page: Memo<Page>,
    help: NodeRef<html::Dialog>,
    content: NodeRef<html::Main>,
    theme: RwSignal<Theme>,
    palette: Dialog,
) -> impl IntoView {
    let link = move |label: &'static str, to: Page, is_here: fn(&Page) -> bool| {
        view! {
            <a
                href=move || navigator.link(to.clone())
                aria-current=move || page.with(is_here).then_some("page")
            >
                {label}
            </a>
        }
    };
    view! {
        <header>
            <a
                class="skip"
                href="#"
                on:click=move |event| {
                    event.prevent_default();
                    focus(content);
                }
            >
                "Skip to the content"
            </a>
            <h1>"langptune"</h1>
            <RunChoice navigator reports />
            <nav aria-label="Pages">
                {link("Overview", Page::Overview, |page| *page == Page::Overview)}
                {link("Users", Page::Users, |page| matches!(page, Page::Users | Page::User(_)))}
                {link("Items", Page::Items, |page| matches!(page, Page::Items | Page::Item(_)))}
                {link("Map", Page::Map, |page| *page == Page::Map)}
                {link("Compare", Page::Compare, |page| *page == Page::Compare)}
                {link("Live check", Page::Check(0), |page| matches!(page, Page::Check(_)))}
            </nav>
            <div class="tools">
                <Live reports page />
                <ThemeChoice theme />
                <button type="button" aria-label="Commands" title="Commands (Ctrl K)" on:click=move |_| palette.show()>"⌘"</button>
                <button type="button" aria-label="Keys" title="Keys (?)" on:click=move |_| show(help)>"?"</button>
            </div>
        </header>
    }
}

/// Which of several runs is shown; the page and nothing else goes along.
#[component]
fn RunChoice(navigator: Navigator, reports: Reports) -> impl IntoView {
    let names = Memo::new(move |_| {
        reports.runs.with(|runs| match runs {
            Some(Ok(runs)) => runs.runs.iter().map(|run| run.name.clone()).collect(),
            _ => Vec::new(),
        })
    });
    let choose = move |event: ev::Event| {
        let page = match untrack(move || navigator.route()).page {
            Page::User(_) | Page::Unknown(_) => Page::Users,
            Page::Item(_) => Page::Items,
            Page::Check(_) => Page::Check(0),
            page => page,
        };
        navigator.go(&Route::new(&event_target_value(&event), page));
    };
    move || {
        let names = names.get();
        (names.len() > 1).then(|| {
            let option = |(place, name): (usize, String)| {
                let own = name.clone();
                let is_chosen = move || {
                    let run = navigator.route().run;
                    run == own || (run.is_empty() && place == 0)
                };
                view! { <option value=name.clone() prop:selected=is_chosen>{name.clone()}</option> }
            };
            let options = names.into_iter().enumerate().map(option).collect_view();
            view! { <label class="run-choice">"Run "<select on:change=choose>{options}</select></label> }
        })
    }
}

/// Whether the run is followed, whether there is more of it than the page shows, and whether its host still answers.
#[component]
fn Live(reports: Reports, page: Memo<Page>) -> impl IntoView {
    let more = move || {
        let is_behind = reports.is_behind() && page.get() != Page::Overview;
        is_behind.then(|| {
            let tip = "The run went on since this page was made: make it anew";
            view! {
                <button type="button" class="live" title=tip data-command="Show new results" on:click=move |_| reports.take_newest()>
                    "New results: show"
                </button>
            }
        })
    };
    let live = move || {
        reports.is_live().then(|| match reports.silence.get() {
            None => view! { <span class="live" title="The report is read again every 5 seconds">"live"</span> }.into_any(),
            Some(problem) => {
                view! { <span class="live silent" role="status" title=problem>"no answer: what was read last is shown"</span> }
                    .into_any()
            }
        })
    };
    (more, live)
}

#[component]
fn ThemeChoice(theme: RwSignal<Theme>) -> impl IntoView {
    Effect::new(move |before: Option<Theme>| {
        let theme = theme.get();
        if before.is_some_and(|before| before != theme) {
            theme.apply();
        }
        theme
    });
    let option = move |known: Theme| {
        view! { <option value=known.name() prop:selected=move || theme.get() == known>{known.label()}</option> }
    };
    view! {
        <select aria-label="Theme" title="Theme" on:change=move |event| theme.set(Theme::named(&event_target_value(&event)))>
            {Theme::ALL.map(option).into_iter().collect_view()}
        </select>
    }
}

#[component]
fn UnknownPage(address: String) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    view! {
        <section>
            <h2>"No such page"</h2>
            <p>"This viewer has no page "<code dir="auto">{address}</code>"."</p>
            <p><a href=move || navigator.link(Page::Overview)>"Go to the overview"</a></p>
        </section>
    }
}

/// The list of shortcuts.
#[component]
fn Help(dialog: NodeRef<html::Dialog>) -> impl IntoView {
    let entry = |(keys, what)| view! { <div><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></div> };
    let close = move |_| {
        if let Some(dialog) = dialog.get_untracked() {
            dialog.close();
        }
    };
    view! {
        <dialog node_ref=dialog aria-labelledby="keys">
            <h2 id="keys">"Keys"</h2>
            <dl class="facts">{SHORTCUTS.iter().copied().map(entry).collect_view()}</dl>
            <button type="button" on:click=close>"Close"</button>
        </dialog>
    }
}

/// Whether this browser computes scores, ranks and metrics to the same bits as a native build. Computed once the page is up.
#[component]
fn SelfCheck() -> impl IntoView {
    let digest = RwSignal::new(None);
    let compute = move || digest.try_set(Some(selfcheck::digest(0).map_err(|error| error.to_string())));
    Effect::new(move |_| set_timeout(compute, Duration::from_millis(100)));
    let outcome = |computed: Result<u64, String>| match computed {
        Ok(selfcheck::DIGEST_OF_SEED_0) => "the same as recorded from a native build".to_owned(),
        Ok(_) => format!("NOT the recorded {}", hexadecimal(selfcheck::DIGEST_OF_SEED_0)),
        Err(problem) => problem,
    };
    move || {
        digest.get().map(|computed| {
            let shown = computed.clone().map_or_else(|_| "none".to_owned(), hexadecimal);
            view! {
                <p class="faint">"Self-check of this browser's ranking: " <code id="digest">{shown}</code> ", " {outcome(computed)}</p>
            }
        })
    }
}

fn hexadecimal(digest: u64) -> String {
    format!("{digest:#018x}")
}

fn title(route: &Route) -> String {
    match route.run.as_str() {
        "" => format!("{} – langptune", route.page.title()),
        run => format!("{} – {run} – langptune", route.page.title()),
    }
}

/// Shortcuts work wherever nothing is being typed.
fn listen_to_keys(navigator: Navigator, help: NodeRef<html::Dialog>, palette: Dialog) {
    let keys = StoredValue::new(Keys::default());
    let listener = window_event_listener(ev::keydown, move |event| {
        // Also while something is typed: no field has a use of its own for it.
        if (event.ctrl_key() || event.meta_key()) && !event.alt_key() && event.key().eq_ignore_ascii_case("k") {
            event.prevent_default();
            palette.show();
            return;
        }
        if event.ctrl_key() || event.meta_key() || event.alt_key() || is_typed_into(&event) {
            return;
        }
        let command = keys
            .try_update_value(|keys| keys.press(&event.key(), event.time_stamp()))
            .flatten();
        match command {
            Some(Command::Go(page)) => navigator.go(&untrack(move || navigator.to(page))),
            Some(Command::Help) => show(help),
            None => {}
        }
    });
    on_cleanup(move || listener.remove());
}

/// Whether the key goes into a field. A slider or a box to tick takes no letters.
fn is_typed_into(event: &ev::KeyboardEvent) -> bool {
    let Some(element) = event.target().and_then(|target| target.dyn_into::<Element>().ok()) else {
        return false;
    };
    match element.dyn_ref::<HtmlInputElement>() {
        Some(input) => !matches!(input.type_().as_str(), "range" | "checkbox" | "radio" | "button"),
        None => element
            .closest("textarea, select, [contenteditable]")
            .is_ok_and(|found| found.is_some()),
    }
}

/// The list of commands, which is worked out whenever it opens.
#[derive(Clone, Copy)]
struct Dialog {
    dialog: NodeRef<html::Dialog>,
    is_open: RwSignal<bool>,
}

impl Dialog {
    fn show(self) {
        self.is_open.set(true);
        show(self.dialog);
    }
}

fn show(dialog: NodeRef<html::Dialog>) {
    if let Some(dialog) = dialog.get_untracked() {
        // Refused only when it is open already.
        _ = dialog.show_modal();
    }
}

fn focus(element: NodeRef<html::Main>) {
    if let Some(element) = element.get_untracked() {
        // Without focus the keyboard goes on from the top, which is no harm.
        _ = element.focus();
    }
}
