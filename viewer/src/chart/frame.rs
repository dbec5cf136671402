//! The component that puts a drawing on the page.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::{ev, html};
use web_sys::Element;

use super::picture::png;
use super::{AnyDrawing, BOTTOM, Mark, Picture, Reading, Size, TOP, Zoom};
use crate::download;
use crate::follow::{Reports, Shown};
use crate::state::{Effect, Memo, RwSignal, Signal, StoredValue};

/// Width that a chart has until it is measured, in CSS pixels.
const FIRST_WIDTH: f64 = 600.0;

/// A pointer that was drawn less far, in CSS pixels, has chosen nothing.
const LEAST_DRAWN: f64 = 8.0;

/// A file that a chart can be saved as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Svg,
    Png,
}

/// A chart with its title, and the values at the point that the pointer, or the keyboard's slider, is at; at the last
/// point while there is none.
#[component]
pub(crate) fn Chart(
    /// What the chart shows, in a few words.
    #[prop(into)]
    title: String,
    /// What is drawn.
    #[prop(into)]
    drawing: Signal<AnyDrawing>,
    /// Height of the drawing in CSS pixels.
    height: f64,
    /// Called with the point that is clicked, or at which Enter is pressed.
    #[prop(optional, into)]
    on_choice: Option<Callback<usize>>,
) -> impl IntoView {
    let figure = NodeRef::<html::Figure>::new();
    let area = NodeRef::<html::Div>::new();
    let width = measured_width(area);
    let place = RwSignal::new(None::<usize>);
    let zoom = RwSignal::new(None::<Zoom>);
    // From where to where the pointer was drawn.
    let drawn = RwSignal::new(None::<[f64; 2]>);
    let problem = RwSignal::new(None::<String>);
    let whole = drawing;
    let part = move |zoom: Option<Zoom>, whole: &AnyDrawing| {
        let zoom = zoom?.within(whole.places())?;
        Some((zoom, whole.part(zoom)?))
    };
    let drawing = Memo::new_with_compare(
        move |_| {
            let whole = whole.get();
            part(zoom.get(), &whole).map_or(whole, |(_, part)| part)
        },
        |_, _| true,
    );
    let size = move || Size {
        width: width.get(),
        height,
    };
    let looked_at = move || {
        let last = drawing.get().places().saturating_sub(1);
        place.get().map_or(last, |place| place.min(last))
    };
    let at = move |event: &ev::PointerEvent| {
        let corner = area.get_untracked().map(|area| area.get_bounding_client_rect());
        let (left, top) = corner.map_or((0.0, 0.0), |corner| (corner.left(), corner.top()));
        [f64::from(event.client_x()) - left, f64::from(event.client_y()) - top]
    };
    let nearest = move |at: [f64; 2]| {
        let drawing = drawing.get_untracked();
        (drawing.places() > 0).then(|| drawing.nearest(at, untrack(size)))
    };
    let first = move || zoom.get_untracked().map_or(0, |zoom| zoom.first);
    let show = move |wanted: Option<Zoom>| {
        let at = first() + untrack(looked_at);
        zoom.set(wanted.filter(|&wanted| part(Some(wanted), &whole.get_untracked()).is_some()));
        if place.get_untracked().is_some() {
            place.set(Some(at.saturating_sub(first())));
        }
    };
    let press = move |event: ev::PointerEvent| {
        let at = at(&event);
        place.set(nearest(at));
        // A finger scrolls, and looks at values.
        if event.button() == 0 && event.pointer_type() != "touch" {
            drawn.set(Some([at[0]; 2]));
            if let Some(area) = area.get_untracked() {
                // Without it, a range ends at the chart's edge.
                _ = area.set_pointer_capture(event.pointer_id());
            }
        }
    };
    let point_at = move |event: ev::PointerEvent| {
        let at = at(&event);
        place.set(nearest(at));
        drawn.update(|drawn| {
            if let Some([_, to]) = drawn {
                *to = at[0];
            }
        });
    };
    let release = move |_| {
        let Some([from, to]) = drawn.get_untracked() else {
            return;
        };
        drawn.set(None);
        if (to - from).abs() >= LEAST_DRAWN
            && let (Some(a), Some(b)) = (nearest([from, 0.0]), nearest([to, 0.0]))
            && let Some(chosen) = Zoom::between(first() + a, first() + b)
        {
            show(Some(chosen));
        }
    };
    let choose = move || {
        if let (Some(on_choice), Some(place)) = (on_choice, place.get_untracked()) {
            on_choice.run(place);
        }
    };
    let at_key = move |event: ev::KeyboardEvent| {
        if event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        let (now, at, places) = (
            zoom.get_untracked(),
            first() + untrack(looked_at),
            whole.get_untracked().places(),
        );
        match event.key().as_str() {
            "+" | "=" => show(Zoom::closer(now, at, places)),
            "-" => show(Zoom::further(now, at, places)),
            "0" => show(None),
            "Enter" => choose(),
            _ => return,
        }
        event.prevent_default();
    };
    let slide = move |event: ev::Event| place.set(event_target_value(&event).parse().ok());
    let said = move || in_words(&drawing.get(), looked_at());
    let label = title.clone();
    let described = {
        let title = title.clone();
        move || format!("{title}. {}", said())
    };
    let name = StoredValue::new(title.clone());
    let reports = use_context::<Reports>();
    let save = move |file: File| {
        if let Some(figure) = figure.get_untracked() {
            spawn_local(async move {
                let size = untrack(size);
                let saved = save(
                    &figure,
                    run_of(reports),
                    name.get_value(),
                    [size.width, size.height],
                    file,
                )
                .await;
                problem.try_set(
                    saved
                        .err()
                        .map(|reason| format!("The file could not be saved: {reason}")),
                );
            });
        }
    };
    let button = move |file: File| {
        let label = match file {
            File::Svg => "SVG",
            File::Png => "PNG",
        };
        let command = format!("Save as {label}: {}", name.get_value());
        view! {
            <button type="button" data-command=command.clone() aria-label=command.clone() title=command on:click=move |_| save(file)>
                {label}
            </button>
        }
    };
    let selection = move || {
        let [from, to] = drawn.get()?;
        let (left, right) = (from.min(to), from.max(to));
        let mark = Mark::rectangle([left, TOP], [right, height - BOTTOM], "selection");
        (right - left >= LEAST_DRAWN).then(|| shape(mark))
    };
    view! {
        <figure class="chart" node_ref=figure>
            <figcaption>
                <span class="chart-title">{title}</span>
                <span class="chart-place">{move || drawing.get().name_of(looked_at())}</span>
                {move || drawing.get().readings(looked_at()).into_iter().map(legend_entry).collect_view()}
            </figcaption>
            <div
                class="plot"
                class:choosable=on_choice.is_some()
                node_ref=area
                on:click=move |_| choose()
                on:pointermove=point_at
                on:pointerdown=press
                on:pointerup=release
                on:pointercancel=move |_| drawn.set(None)
                on:pointerleave=move |_| place.set(None)
                on:dblclick=move |_| show(None)
            >
                <svg
                    viewBox=move || format!("0 0 {} {height}", width.get())
                    height=height.to_string()
                    role="img"
                    aria-label=described
                >
                    <g>{move || drawing.get().marks(size()).into_iter().map(shape).collect_view()}</g>
                    <g>
                        {move || {
                            let place = place.get()?;
                            Some(drawing.get().pointer(size(), place).into_iter().map(shape).collect_view())
                        }}
                        {selection}
                    </g>
                </svg>
                <input
                    class="slider"
                    type="range"
                    min="0"
                    step="1"
                    max=move || drawing.get().places().saturating_sub(1).to_string()
                    prop:value=move || looked_at().to_string()
                    aria-label=format!("Point of: {label}")
                    aria-valuetext=said
                    on:input=slide
                    on:keydown=at_key
                    on:focus=move |_| place.set(Some(looked_at()))
                    on:blur=move |_| place.set(None)
                />
            </div>
            <div class="chart-tools">
                {move || zoom.get().map(|_| view! {
                    <button type="button" class="whole" on:click=move |_| show(None)>"Show all"</button>
                })}
                {[File::Svg, File::Png].map(button).into_iter().collect_view()}
            </div>
            {move || problem.get().map(|problem| view! { <p class="problem" role="alert">{problem}</p> })}
        </figure>
    }
}

/// The name of the run that is shown.
fn run_of(reports: Option<Reports>) -> String {
    match reports.map(|reports| reports.shown.get_untracked()) {
        Some(Shown::Report(source)) => source.manifest().run.clone(),
        _ => "run".to_owned(),
    }
}

/// Saves the chart as it is on the page; the file's name says run and chart.
async fn save(figure: &Element, run: String, title: String, size: [f64; 2], file: File) -> Result<(), String> {
    let stem = format!("{run}-{title}");
    let picture = Picture::read(figure, title, size).map_err(|reason| format!("{reason:?}"))?;
    match file {
        File::Svg => download::save(&stem, "svg", "image/svg+xml", &picture.svg()),
        File::Png => {
            let saved = png(&picture)
                .await
                .and_then(|url| download::save_from(&url, &stem, "png"));
            saved.map_err(|reason| format!("{reason:?}"))
        }
    }
}

/// The element's width, measured once it is there and whenever the window changes.
fn measured_width(area: NodeRef<html::Div>) -> RwSignal<f64> {
    let width = RwSignal::new(FIRST_WIDTH);
    let measure = move || {
        // The chart may be gone by the next frame.
        if let Some(Some(area)) = area.try_get_untracked() {
            let found = f64::from(area.client_width());
            if found > 0.0 && found != width.get_untracked() {
                width.set(found);
            }
        }
    };
    Effect::new(move |_| {
        area.track();
        request_animation_frame(measure);
    });
    let listener = window_event_listener(ev::resize, move |_| measure());
    on_cleanup(move || listener.remove());
    width
}

/// A point and its values as a sentence.
fn in_words(drawing: &AnyDrawing, place: usize) -> String {
    let said = drawing
        .readings(place)
        .into_iter()
        .map(|reading| format!("{} {}", reading.name, reading.value));
    format!("{}: {}", drawing.name_of(place), said.collect::<Vec<_>>().join(", "))
}

fn legend_entry(reading: Reading) -> impl IntoView {
    let Reading {
        series,
        class,
        name,
        value,
    } = reading;
    view! {
        <span class="legend">
            <span class=format!("swatch series-{series} {class}") aria-hidden="true"></span>
            <span class="series-name">{name}</span>" "<b>{value}</b>
        </span>
    }
}

fn shape(mark: Mark) -> AnyView {
    match mark {
        Mark::Path { d, class } => view! { <path d=d class=class></path> }.into_any(),
        Mark::Text { x, y, text, class } => view! { <text x=x y=y class=class>{text}</text> }.into_any(),
        Mark::Dot { x, y, class } => view! { <circle cx=x cy=y r="3" class=class></circle> }.into_any(),
    }
}
