//! The component that puts a drawing on the page.

use leptos::prelude::*;
use leptos::{ev, html};

use super::{AnyDrawing, Mark, Reading, Size};

/// Width that a chart has until it is measured, in CSS pixels.
const FIRST_WIDTH: f64 = 600.0;

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
) -> impl IntoView {
    let area = NodeRef::<html::Div>::new();
    let width = measured_width(area);
    let place = RwSignal::new(None::<usize>);
    let size = move || Size {
        width: width.get(),
        height,
    };
    let looked_at = move || {
        let last = drawing.get().places().saturating_sub(1);
        place.get().map_or(last, |place| place.min(last))
    };
    let point_at = move |event: ev::PointerEvent| {
        if let Some(area) = area.get_untracked() {
            let x = f64::from(event.client_x()) - area.get_bounding_client_rect().left();
            let size = Size {
                width: width.get_untracked(),
                height,
            };
            let drawing = drawing.get_untracked();
            place.set((drawing.places() > 0).then(|| drawing.nearest(x, size)));
        }
    };
    let slide = move |event: ev::Event| place.set(event_target_value(&event).parse().ok());
    let said = move || in_words(&drawing.get(), looked_at());
    let label = title.clone();
    let described = {
        let title = title.clone();
        move || format!("{title}. {}", said())
    };
    view! {
        <figure class="chart">
            <figcaption>
                <span class="chart-title">{title}</span>
                <span class="chart-place">{move || drawing.get().name_of(looked_at())}</span>
                {move || drawing.get().readings(looked_at()).into_iter().map(legend_entry).collect_view()}
            </figcaption>
            <div class="plot" node_ref=area on:pointermove=point_at on:pointerdown=point_at on:pointerleave=move |_| place.set(None)>
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
                    on:focus=move |_| place.set(Some(looked_at()))
                    on:blur=move |_| place.set(None)
                />
            </div>
        </figure>
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
            {name}" "<b>{value}</b>
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
