//! Which report is on the page: chosen by the route among the runs, opened, and followed while it is being written.

use std::time::Duration;

use eval_core::report::{RunPlace, Runs};
use leptos::prelude::*;
use leptos::task::spawn_local;

use crate::load::{LoadError, Source};
use crate::navigate::Navigator;
use crate::state::{Effect, Memo, RwSignal, StoredValue};
use crate::{address, runs};

/// How often a run that still trains is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// What there is to show.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Nothing yet.
    Loading,
    /// A report.
    Report(Source),
    /// Why there is no report, in words for the page.
    Problem(String),
}

/// The reports that the viewer can open, and the one that it shows.
#[derive(Clone, Copy, Debug)]
pub struct Reports {
    /// The list of runs, or why there is none; `None` while it is read.
    pub runs: RwSignal<Option<Result<Runs, String>>>,
    /// What the page shows.
    pub shown: RwSignal<Shown>,
    /// The report as it was read last, which may be newer than what the page shows.
    pub newest: RwSignal<Option<Source>>,
    /// The report that the page was made of.
    displayed: RwSignal<Option<Source>>,
    /// Why a run that is followed could not be read the last time; what is shown is from before.
    pub silence: RwSignal<Option<String>>,
}

impl Reports {
    /// Reads the list of runs, and opens the run of the route whenever it is another one.
    pub fn new(navigator: Navigator) -> Self {
        let reports = Self {
            runs: RwSignal::new(None),
            shown: RwSignal::new(Shown::Loading),
            newest: RwSignal::new(None),
            displayed: RwSignal::new(None),
            silence: RwSignal::new(None),
        };
        let named = address::report_folder(&location().search().unwrap_or_default());
        spawn_local(async move { reports.runs.set(Some(runs::offered(named).await)) });
        let place = Memo::new(move |_| reports.place(navigator));
        Effect::new(move |_| reports.open(place));
        reports.follow(place);
        reports
    }

    /// Whether the runs are followed.
    pub fn is_live(self) -> bool {
        self.runs.with(|runs| matches!(runs, Some(Ok(runs)) if runs.live))
    }

    /// The report that a page is to be made of now, `source` or what it has become; not tracked.
    pub fn displayed(self, source: &Source) -> Source {
        let newest = self.newest.get_untracked().unwrap_or_else(|| source.clone());
        self.displayed.set(Some(newest.clone()));
        newest
    }

    /// Whether the page was made of an earlier report; tracked.
    pub fn is_behind(self) -> bool {
        let newest = self.newest.get();
        newest.is_some() && self.displayed.get() != newest
    }

    /// Makes the page anew of the report as it is now.
    pub fn take_newest(self) {
        if let Some(newest) = self.newest.get_untracked() {
            self.shown.set(Shown::Report(newest));
        }
    }

    /// The folder of the run that the route names, or why there is none; `None` while the list is read.
    fn place(self, navigator: Navigator) -> Option<Result<RunPlace, String>> {
        let name = navigator.route().run;
        self.runs.with(|runs| match runs.as_ref()? {
            Err(problem) => Some(Err(problem.clone())),
            Ok(runs) => Some(runs::chosen(runs, &name).cloned().ok_or_else(|| {
                let known: Vec<_> = runs.runs.iter().map(|run| run.name.as_str()).collect();
                format!("There is no run “{name}” here: choose one of {}.", known.join(", "))
            })),
        })
    }

    fn open(self, place: Memo<Option<Result<RunPlace, String>>>) {
        self.silence.set(None);
        self.newest.set(None);
        match place.get() {
            None => self.shown.set(Shown::Loading),
            Some(Err(problem)) => self.shown.set(Shown::Problem(problem)),
            Some(Ok(run)) => {
                self.shown.set(Shown::Loading);
                spawn_local(async move {
                    let opened = Source::open(&run.path).await;
                    // Another run may have been chosen meanwhile.
                    if place.get_untracked() == Some(Ok(run)) {
                        self.open_found(opened);
                    }
                });
            }
        }
    }

    /// Looks every few seconds whether the report on the page has changed, where the list of runs says that it may.
    fn follow(self, place: Memo<Option<Result<RunPlace, String>>>) {
        let under_way = StoredValue::new(false);
        let look = move || {
            let Some(Ok(run)) = place.get_untracked().filter(|_| untrack(move || self.is_live())) else {
                return;
            };
            if under_way.get_value() {
                return;
            }
            under_way.set_value(true);
            spawn_local(async move {
                self.look_again(run, place).await;
                under_way.set_value(false);
            });
        };
        if let Ok(handle) = set_interval_with_handle(look, EVERY) {
            on_cleanup(move || handle.clear());
        }
    }

    fn open_found(self, opened: Result<Source, LoadError>) {
        match opened {
            Ok(source) => {
                self.newest.set(Some(source.clone()));
                self.shown.set(Shown::Report(source));
            }
            Err(error) => self.shown.set(Shown::Problem(error.to_string())),
        }
    }

    /// A report that went on is the newest from then on: the overview follows it, and other pages stay as they are read, until one
    /// goes to another page or asks for what is new.
    async fn look_again(self, run: RunPlace, place: Memo<Option<Result<RunPlace, String>>>) {
        let is_still = || place.get_untracked() == Some(Ok(run.clone()));
        let silence = match self.shown.get_untracked() {
            Shown::Loading => return,
            Shown::Report(source) => {
                let source = self.newest.get_untracked().unwrap_or(source);
                let reopened = source.reopened().await;
                if !is_still() {
                    return;
                }
                match reopened {
                    Ok(None) => None,
                    Ok(newer) => {
                        self.newest.set(newer);
                        None
                    }
                    Err(error) => Some(error.to_string()),
                }
            }
            Shown::Problem(before) => {
                let opened = Source::open(&run.path).await;
                if !is_still() {
                    return;
                }
                if opened
                    .as_ref()
                    .map_or_else(|error| error.to_string() != before, |_| true)
                {
                    self.open_found(opened);
                }
                None
            }
        };
        if self.silence.get_untracked() != silence {
            self.silence.set(silence);
        }
    }
}
