//! The components.

use eval_core::report::read_manifest;
use eval_core::selfcheck;
use leptos::prelude::*;

use crate::overview::{Cell, Overview, Row, Table};
use crate::{address, fetch};

/// The page.
#[component]
pub fn App() -> impl IntoView {
    let folder = folder();
    let shown = folder.clone();
    let report = LocalResource::new(move || open(folder.clone()));
    view! {
        <header>
            <h1>"langptune"</h1>
            <p class="address">"Report: " {shown}</p>
        </header>
        <main>
            <Suspense fallback=|| view! { <p class="faint">"Loading the report …"</p> }>
                {move || Suspend::new(async move {
                    match report.await {
                        Ok(overview) => view! { <Report overview /> }.into_any(),
                        Err(problem) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
                    }
                })}
            </Suspense>
        </main>
        <footer><SelfCheck /></footer>
    }
}

/// What the manifest says.
#[component]
fn Report(overview: Overview) -> impl IntoView {
    let fact = |(name, value)| view! { <dt>{name}</dt><dd>{value}</dd> };
    view! {
        <section>
            <h2>{overview.run}</h2>
            <dl>{overview.facts.into_iter().map(fact).collect_view()}</dl>
        </section>
        {overview.tables.into_iter().map(|table| view! { <Metrics table /> }).collect_view()}
    }
}

/// The metrics at one cutoff.
#[component]
fn Metrics(table: Table) -> impl IntoView {
    let caption = format!(
        "Metrics over the {}: mean over users, 95 % bootstrap interval",
        table.caption
    );
    let head = |name| view! { <th scope="col">{name}</th> };
    let cell = |cell: Option<Cell>| match cell {
        Some(Cell { mean, interval }) => {
            view! { <td><span class="mean">{mean}</span>" "<small class="faint">{interval}</small></td> }.into_any()
        }
        None => view! { <td class="faint">"–"</td> }.into_any(),
    };
    let row = |row: Row| {
        let cells = row.cells.into_iter().map(cell).collect_view();
        view! { <tr><th scope="row">{row.name}</th>{cells}</tr> }
    };
    view! {
        <section class="scroll">
            <table>
                <caption>{caption}</caption>
                <thead><tr><th scope="col">"Ranked with"</th>{table.columns.into_iter().map(head).collect_view()}</tr></thead>
                <tbody>{table.rows.into_iter().map(row).collect_view()}</tbody>
            </table>
        </section>
    }
}

/// Whether this browser computes scores, ranks and metrics to the same bits as a native build.
#[component]
fn SelfCheck() -> impl IntoView {
    let computed = selfcheck::digest(0);
    let outcome = match &computed {
        Ok(digest) if *digest == selfcheck::DIGEST_OF_SEED_0 => "the same as recorded from a native build".to_owned(),
        Ok(_) => format!("NOT the recorded {}", hexadecimal(selfcheck::DIGEST_OF_SEED_0)),
        Err(error) => error.to_string(),
    };
    let digest = computed.map_or_else(|_| "none".to_owned(), hexadecimal);
    view! { <p class="faint">"Self-check of this browser's ranking: " <code id="digest">{digest}</code> ", " {outcome}</p> }
}

fn hexadecimal(digest: u64) -> String {
    format!("{digest:#018x}")
}

/// The report's folder that the page's address names.
fn folder() -> String {
    let location = window().location();
    address::report_folder(
        &location.search().unwrap_or_default(),
        &location.hash().unwrap_or_default(),
    )
}

/// Reads the report in `folder`; the problem, if any, is in words for the page.
async fn open(folder: String) -> Result<Overview, String> {
    let url = format!("{folder}manifest.json");
    let text = fetch::text(&url).await.map_err(|error| error.to_string())?;
    let manifest = read_manifest(text.as_bytes()).map_err(|error| format!("{url}: {error}"))?;
    Ok(Overview::new(&manifest))
}
