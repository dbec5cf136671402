//! The page, and how its parts belong together.

use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::js_sys::Date;

use super::filter_box::{FILTER_ID, FilterBox};
use super::loading::{Job, Loading, Wanted};
use super::rows;
use super::search::Searchable;
use super::sequence::Sequence;
use super::shown::{Shown, parameter};
use super::toolbar::Toolbar;
use crate::address::{Page, Route};
use crate::controls::{FileProgress, focus_by_key};
use crate::filter::{Filter, WordUsers, Words};
use crate::grid::Grid;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::reading::Progress;
use crate::state::{Effect, Memo, RwSignal, Signal, StoredValue};
use crate::table::Column;

/// The rows are put in order anew at most so often while files arrive, in milliseconds.
const REFRESH_MS: f64 = 250.0;

/// All users of a report.
#[component]
pub fn UsersPage(
    /// The report.
    source: Source,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    if source.manifest().users.count == 0 {
        return view! { <p class="faint">"The report has no users: nothing was evaluated on its split."</p> }
            .into_any();
    }
    let of_address = source.clone();
    let read = Memo::new(move |before: Option<&Result<Shown, String>>| {
        let route = navigator.route();
        match before {
            // The address of the next page says nothing about this one.
            Some(before) if route.page != Page::Users => before.clone(),
            _ => Shown::read(&route.parameters, of_address.manifest()),
        }
    });
    let is_readable = Memo::new(move |_| read.with(Result::is_ok));
    let page = move || {
        match (is_readable.get(), read.get_untracked()) {
        (true, Ok(first)) => view! { <Users source=source.clone() read first /> }.into_any(),
        _ => view! {
            <p class="problem" role="alert">{move || read.get().err()}</p>
            <p><a href=move || Route::new(&navigator.route().run, Page::Users).to_string()>"Show the users without these settings"</a></p>
        }
        .into_any(),
    }
    };
    page.into_any()
}

/// What was found for the words in quotes of a filter.
#[derive(Clone, Debug, Default, PartialEq)]
struct Found {
    checkpoint: usize,
    users: WordUsers,
    problem: Option<String>,
}

/// The page of a report whose address can be read.
#[component]
fn Users(source: Source, read: Memo<Result<Shown, String>>, first: Shown) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let shown = Memo::new(move |before: Option<&Shown>| {
        let kept = || before.unwrap_or(&first).clone();
        read.get().unwrap_or_else(|_| kept())
    });
    let text = navigator.parameter(parameter::FILTER);
    let parsed = Memo::new(move |_| Filter::parse(text.get().as_deref().unwrap_or_default()));
    // While a filter is being typed, the last whole one holds.
    let filter = Memo::new(move |before: Option<&Filter>| {
        let kept = || before.cloned().unwrap_or_default();
        parsed.get().unwrap_or_else(|_| kept())
    });
    let files = Files::new(source.clone(), shown, filter);
    let (found, is_searching) = search(source.clone(), shown, filter);
    let rows = Memo::new(move |_| {
        files.version.track();
        let shown = shown.get();
        files.loading.with_value(|loading| {
            let matching = found.with(|found| filter.with(|filter| filter.matching(loading.table(), &found.users)));
            loading.table().sorted(matching, shown.sort, shown.descending)
        })
    });
    let sequence = expect_context::<Sequence>();
    Effect::new(move |_| {
        let route = untrack(move || navigator.route());
        // The filter and the sort are in the address by the time that rows follow them.
        rows.with(|rows| sequence.set(&route, rows.clone()));
    });
    focus_by_key(FILTER_ID);
    let order = {
        let order = Memo::new(move |_| (filter.get(), shown.with(|shown| (shown.sort, shown.descending))));
        Memo::new(move |before: Option<&u32>| {
            order.with(|_| ());
            before.map_or(0, |before| before.wrapping_add(1))
        })
    };
    let headings = Memo::new(move |_| shown.with(rows::headings));
    let sort = Callback::new(move |name: &'static str| {
        if let Some(column) = Column::named(name) {
            let sort = shown.with_untracked(|shown| shown.sort_after_click(column));
            navigator.set(parameter::SORT, Some(&sort));
        }
    });
    let row = Callback::new(move |user: u32| {
        let row = |loading: &Loading| shown.with_untracked(|shown| rows::row(loading.table(), user, &shown.columns));
        files.loading.with_value(row)
    });
    let error = Signal::derive(move || parsed.with(|parsed| parsed.as_ref().err().map(ToString::to_string)));
    let users = source.manifest().users.count;
    let note = move || {
        let asks = filter.with(|filter| !filter.words().is_empty());
        let searchable = Searchable::of(&source, shown.with(|shown| shown.checkpoint));
        (asks && !searchable.note.is_empty()).then_some(searchable.note)
    };
    let stem = files
        .source
        .with_value(|source| format!("{}-users", source.manifest().run));
    view! {
        <section class="users">
            <h2>"Users"</h2>
            <FilterBox error />
            <p class="note">{note}</p>
            <p class="problem" role="alert">{move || found.with(|found| found.problem.clone())}</p>
            <Toolbar source=files.source loading=files.loading rows shown stem />
            <Status files rows is_searching users />
            <Grid
                label="Users"
                nothing="No user matches the filter."
                headings
                on_sort=sort
                rows
                row
                page=|user| Page::User(user as usize)
                version=files.version
                order
            />
        </section>
    }
}

/// How many users match, and how far the files are.
#[component]
fn Status(files: Files, rows: Memo<Vec<u32>>, is_searching: RwSignal<bool>, users: usize) -> impl IntoView {
    let count = move || format!("{} of {users} users", rows.with(Vec::len));
    view! {
        <div class="status">
            <span role="status">{count}{move || is_searching.get().then_some(", searching …")}</span>
            <FileProgress progress=files.progress retry=Callback::new(move |()| files.retry()) />
        </div>
    }
}

/// The files of the table: which are there, and reading those that are not.
#[derive(Clone, Copy)]
struct Files {
    source: StoredValue<Source>,
    loading: StoredValue<Loading>,
    /// Changes with the table.
    version: RwSignal<u32>,
    progress: RwSignal<Progress>,
    refreshed_ms: StoredValue<f64>,
}

impl Files {
    /// Reads what `shown` and `filter` need, from now on.
    fn new(source: Source, shown: Memo<Shown>, filter: Memo<Filter>) -> Self {
        let wanted = Memo::new(move |_| {
            let compared = filter.with(|filter| filter.compares(Column::Popularity));
            shown.with(|shown| Wanted {
                checkpoint: shown.checkpoint,
                against: shown.against,
                popularity: compared || shown.sort == Column::Popularity || shown.columns.contains(&Column::Popularity),
            })
        });
        let files = Self {
            loading: StoredValue::new(Loading::new(source.manifest(), wanted.get_untracked())),
            source: StoredValue::new(source),
            version: RwSignal::new(0),
            progress: RwSignal::new(Progress::default()),
            refreshed_ms: StoredValue::new(0.0),
        };
        Effect::new(move |_| {
            let wanted = wanted.get();
            files.loading.update_value(|loading| loading.want(wanted));
            files.version.update(|version| *version += 1);
            files.go_on();
        });
        files
    }

    fn retry(self) {
        self.loading.update_value(Loading::retry);
        self.go_on();
    }

    /// Asks for the next files. When the page is gone, so is what is stored, and nothing more is asked for.
    fn go_on(self) {
        let jobs = self.loading.try_update_value(Loading::next_jobs).unwrap_or_default();
        for job in jobs {
            spawn_local(async move {
                self.read(job).await;
                self.go_on();
            });
        }
        let Some(progress) = self.loading.try_with_value(Loading::progress) else {
            return;
        };
        let now = Date::now();
        let waited = now - self.refreshed_ms.try_get_value().unwrap_or(now);
        if progress.is_over() || waited >= REFRESH_MS {
            self.refreshed_ms.try_update_value(|refreshed| *refreshed = now);
            self.version.try_update(|version| *version += 1);
        }
        self.progress.try_set(progress);
    }

    async fn read(self, job: Job) {
        let Some(source) = self.source.try_get_value() else {
            return;
        };
        let outcome = match job {
            Job::Users(file) => {
                let chunk = source.users(file).await;
                chunk.map(|chunk| {
                    self.loading
                        .try_update_value(|loading| loading.take_users(file, &chunk))
                })
            }
            Job::Results { checkpoint, file } | Job::OtherResults { checkpoint, file } => {
                let chunk = source.results(checkpoint, file).await;
                chunk.map(|chunk| {
                    self.loading
                        .try_update_value(|loading| loading.take_results(job, &chunk))
                })
            }
            Job::Catalogue => {
                let catalogue = source.catalogue().await;
                catalogue.map(|catalogue| {
                    self.loading
                        .try_update_value(|loading| loading.take_catalogue(&catalogue))
                })
            }
            Job::Items(file) => {
                let chunk = source.items(file).await;
                chunk.map(|chunk| {
                    self.loading
                        .try_update_value(|loading| loading.take_items(file, &chunk))
                })
            }
        };
        if let Err(error) = outcome {
            self.loading
                .try_update_value(|loading| loading.fail(job, error.to_string()));
        }
    }
}

/// Looks for the words in quotes of the filter, whenever they or the checkpoint change. Also says whether it is at it.
fn search(source: Source, shown: Memo<Shown>, filter: Memo<Filter>) -> (RwSignal<Found>, RwSignal<bool>) {
    let found = RwSignal::new(Found::default());
    let is_searching = RwSignal::new(false);
    let sought = Memo::new(move |_| {
        let words: Vec<Words> = filter.with(|filter| filter.words().into_iter().cloned().collect());
        (shown.with(|shown| shown.checkpoint), words)
    });
    Effect::new(move |_| {
        let (checkpoint, words) = sought.get();
        let source = source.clone();
        is_searching.set(!words.is_empty());
        spawn_local(async move {
            let known = found.try_get_untracked().unwrap_or_default();
            let now_found = find(&source, checkpoint, &words, &known).await;
            // Something else may be sought by now.
            if sought.try_get_untracked() == Some((checkpoint, words)) {
                found.try_set(now_found);
                is_searching.try_set(false);
            }
        });
    });
    (found, is_searching)
}

async fn find(source: &Source, checkpoint: usize, words: &[Words], known: &Found) -> Found {
    let searchable = Searchable::of(source, checkpoint);
    let mut found = Found {
        checkpoint,
        ..Found::default()
    };
    for words in words {
        let known = known.users.get(words).filter(|_| known.checkpoint == checkpoint);
        let users = match known {
            Some(users) => Ok(users.clone()),
            None => searchable.users_with(source, words).await,
        };
        match users {
            Ok(users) => _ = found.users.insert(words.clone(), users),
            Err(error) => found.problem = Some(format!("Words could not be looked for. {error}")),
        }
    }
    found
}
