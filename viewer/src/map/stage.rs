//! The picture on the page, and what pointer and keyboard do with it.

use std::time::Duration;

use leptos::ev::{KeyboardEvent, PointerEvent, WheelEvent};
use leptos::leptos_dom::helpers::TimeoutHandle;
use leptos::prelude::*;
use leptos::{ev, html};
use wasm_bindgen::{Clamped, JsCast};
use web_sys::{CanvasRenderingContext2d, HtmlCanvasElement, ImageData};

use super::camera::{Camera, Window};
use super::draw::Picture;
use super::lasso::is_inside;
use super::points::{Kind, Place, Points};
use crate::address::{Page, Route};
use crate::items::known::AllItems;
use crate::navigate::Navigator;
use crate::state::{Effect, LocalValue, Memo, RwSignal, StoredValue};

/// How near the pointer must be to a point, in pixels.
const NEAR: f64 = 12.0;

/// How far a pointer may move in a click, in pixels.
const CLICK: f64 = 4.0;

/// How long everything must be still until lists and address follow.
const STILL: Duration = Duration::from_millis(250);

/// How the map is looked at, and what is done with it.
#[derive(Debug, Default)]
pub struct Look {
    /// What is looked at; everything unless said.
    pub camera: Option<Camera>,
    /// The same, once everything is still.
    pub still: Option<Camera>,
    /// Whether the first look was said, or was taken.
    pub has_looked: bool,
    /// The picture's size on the page, in pixels.
    pub size: [f64; 2],
    /// The smallest rectangle around all points.
    pub bounds: [[f64; 2]; 2],
    /// The point under the pointer, or in the middle for the keyboard.
    pub looked_at: Option<Place>,
    /// The points that were chosen.
    pub chosen: Option<Vec<Place>>,
    /// Points that are marked.
    pub marked: Vec<Place>,
    /// Lines between two points.
    pub lines: Vec<[Place; 2]>,
    /// The targets of a user.
    pub targets: (Option<usize>, Vec<u32>),
    /// The line around points, in the plane.
    pub line: Vec<[f64; 2]>,
    /// Pointers that are down, where they are, and how far they went.
    pub pointers: Vec<(i32, [f64; 2])>,
    /// See `pointers`.
    pub way: f64,
    /// What is painted.
    pub picture: Picture,
    /// Whether the picture is to be painted in the next frame.
    pub is_waiting: bool,
    /// Ends the waiting for stillness.
    pub waiting: Option<TimeoutHandle>,
}

/// The map's state in the page. Its parts lie in few values: the browser's code has a budget, and every kind of signal its price.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// For links and the address.
    pub navigator: Navigator,
    /// What the items are.
    pub items: AllItems,
    /// What lies on the map.
    pub points: StoredValue<Points>,
    /// How it is looked at.
    pub look: LocalValue<Look>,
    /// The kinds that are shown, as the address has them.
    pub kinds: Memo<Option<String>>,
    /// Changes with the points and their colours.
    pub version: RwSignal<u32>,
    /// Changes with what is looked at.
    pub moved: RwSignal<u32>,
    /// Changes once everything is still.
    pub settled: RwSignal<u32>,
    /// Changes with the points that were chosen.
    pub listed: RwSignal<u32>,
    /// Whether the page is dark.
    pub is_dark: RwSignal<bool>,
    /// Whether a pointer draws around points instead of moving the map.
    pub draws: RwSignal<bool>,
}

/// Has whatever follows a counter run again, if the page is still there.
pub fn bump(counter: RwSignal<u32>) {
    counter.try_update(|count| *count = count.wrapping_add(1));
}

impl Stage {
    /// The kinds that are shown; tracked.
    pub fn shown_kinds(self) -> Vec<Kind> {
        let named = self.kinds.get();
        let is_shown = |kind: &Kind| match &named {
            None => true,
            Some(names) => names.split(',').any(|name| name == kind.name()),
        };
        Kind::ALL.into_iter().filter(is_shown).collect()
    }

    /// The window; tracked.
    pub fn window(self) -> Window {
        self.moved.track();
        self.window_of(|look| look.camera)
    }

    /// The window once everything is still; tracked.
    pub fn still_window(self) -> Window {
        self.settled.track();
        self.window_of(|look| look.still)
    }

    fn window_of(self, camera: fn(&Look) -> Option<Camera>) -> Window {
        self.look.with_value(|look| {
            let camera = camera(look).unwrap_or(Window::whole(look.bounds));
            Window::new(camera, look.size, look.bounds)
        })
    }

    /// Looks at something else.
    pub fn set_camera(self, camera: Option<Camera>) {
        self.look.update_value(|look| look.camera = camera);
        bump(self.moved);
        self.wait();
    }

    /// Lists and address follow once everything is still.
    fn wait(self) {
        let follow = move || {
            let followed = self.look.try_update_value(|look| {
                look.still = look.camera;
                look.camera
            });
            let Some(camera) = followed else {
                return;
            };
            bump(self.settled);
            if untrack(move || self.navigator.route()).page == Page::Map {
                let view = camera.map(|camera| camera.to_string());
                self.navigator.set("view", view.as_deref());
            }
        };
        self.end_waiting();
        let waiting = set_timeout_with_handle(follow, STILL).ok();
        self.look.update_value(|look| look.waiting = waiting);
    }

    fn end_waiting(self) {
        if let Some(Some(handle)) = self.look.try_update_value(|look| look.waiting.take()) {
            handle.clear();
        }
    }

    fn look_at(self, place: Option<Place>) {
        let is_new = self
            .look
            .try_update_value(|look| std::mem::replace(&mut look.looked_at, place) != place);
        if is_new == Some(true) {
            bump(self.moved);
        }
    }

    /// Grows everything around the middle.
    pub fn zoom(self, factor: f64) {
        let window = self.window_of(|look| look.camera);
        self.set_camera(Some(window.zoomed(factor, window.size.map(|extent| extent / 2.0))));
    }

    /// The page of a point; tracked.
    pub fn route(self, place: Place) -> Route {
        let (page, profile) = self.points.with_value(|points| points.page(place));
        self.navigator.to(page).with("profile", profile.as_deref())
    }

    /// What a point is, in words; tracked.
    pub fn name(self, place: Place) -> String {
        self.version.track();
        self.items
            .with(|known| self.points.with_value(|points| points.name(place, known)))
    }

    fn near(self, pixel: [f64; 2], farthest: f64) -> Option<Place> {
        let window = self.window_of(|look| look.camera);
        let kinds = untrack(move || self.shown_kinds());
        let near = |points: &Points| points.nearest(&kinds, window.point(pixel), farthest / window.scale, 1);
        self.points.with_value(near).first().copied()
    }

    fn open(self, place: Option<Place>) {
        if let Some(place) = place {
            let route = untrack(move || self.route(place));
            self.navigator.go(&route);
        }
    }

    fn key(self, event: &KeyboardEvent) {
        if event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        let window = self.window_of(|look| look.camera);
        let pan = |by: [f64; 2]| self.set_camera(Some(window.panned(by)));
        match event.key().as_str() {
            "ArrowLeft" => pan([60.0, 0.0]),
            "ArrowRight" => pan([-60.0, 0.0]),
            "ArrowUp" => pan([0.0, 60.0]),
            "ArrowDown" => pan([0.0, -60.0]),
            "+" | "=" => self.zoom(1.5),
            "-" => self.zoom(1.0 / 1.5),
            "0" => self.set_camera(None),
            "Enter" => self.open(self.look.with_value(|look| look.looked_at)),
            "Escape" => self.draws.set(false),
            _ => return,
        }
        event.prevent_default();
        self.look_at(self.near(window.size.map(|extent| extent / 2.0), f64::INFINITY));
    }

    /// Puts the points inside the line on the list.
    fn choose_inside(self) {
        let line = self
            .look
            .try_update_value(|look| std::mem::take(&mut look.line))
            .unwrap_or_default();
        self.draws.set(false);
        bump(self.moved);
        if line.len() > 2 {
            self.choose(&|point| is_inside(&line, point));
        }
    }

    /// Puts points on the list.
    pub fn choose(self, is_wanted: &dyn Fn([f64; 2]) -> bool) {
        let kinds = untrack(move || self.shown_kinds());
        let chosen = self.points.with_value(|points| points.all(&kinds, is_wanted));
        self.look.update_value(|look| look.chosen = Some(chosen));
        bump(self.listed);
    }

    /// A pointer at a pixel goes down.
    fn press(self, id: i32, pixel: [f64; 2]) {
        let point = self.window_of(|look| look.camera).point(pixel);
        let draws = self.draws.get_untracked();
        self.look.update_value(|look| {
            look.pointers.retain(|(known, _)| *known != id);
            look.pointers.push((id, pixel));
            look.way = 0.0;
            look.line = if draws { vec![point] } else { Vec::new() };
        });
    }

    /// A pointer moves to a pixel.
    fn drag(self, id: i32, pixel: [f64; 2]) {
        let window = self.window_of(|look| look.camera);
        let draws = self.draws.get_untracked();
        let found = self.look.try_update_value(|look| {
            let own = look.pointers.iter().position(|(known, _)| *known == id)?;
            let from = std::mem::replace(&mut look.pointers[own].1, pixel);
            look.way += distance(from, pixel);
            let other = look
                .pointers
                .iter()
                .find(|(known, _)| *known != id)
                .map(|(_, still)| *still);
            if draws && other.is_none() {
                look.line.push(window.point(pixel));
            }
            Some((from, other))
        });
        match found.flatten() {
            None => self.look_at(self.near(pixel, NEAR)),
            Some((from, Some(still))) => {
                let factor = distance(pixel, still) / distance(from, still).max(1.0);
                self.set_camera(Some(window.zoomed(factor, still)));
            }
            Some(_) if draws => bump(self.moved),
            Some((from, None)) => self.set_camera(Some(window.panned([pixel[0] - from[0], pixel[1] - from[1]]))),
        }
    }

    /// A pointer goes up.
    fn release(self, id: i32, pixel: [f64; 2], is_click: bool) {
        let way = self.look.try_update_value(|look| {
            look.pointers.retain(|(known, _)| *known != id);
            look.way
        });
        if self.draws.get_untracked() {
            self.choose_inside();
        } else if is_click && way.is_some_and(|way| way < CLICK) {
            self.open(self.near(pixel, NEAR));
        }
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// The map.
pub fn stage_view(stage: Stage) -> AnyView {
    let area = NodeRef::<html::Div>::new();
    let canvas = NodeRef::<html::Canvas>::new();
    follow_size(stage, area);
    paint(stage, canvas);
    on_cleanup(move || stage.end_waiting());
    let at = move |event: &PointerEvent| place_in(area, f64::from(event.client_x()), f64::from(event.client_y()));
    let down = move |event: PointerEvent| {
        if let Some(area) = area.get_untracked() {
            // Without it a pointer that leaves the map stops moving it, which is no harm.
            _ = area.set_pointer_capture(event.pointer_id());
        }
        if event.shift_key() {
            stage.draws.set(true);
        }
        stage.press(event.pointer_id(), at(&event));
    };
    let moved = move |event: PointerEvent| stage.drag(event.pointer_id(), at(&event));
    let up = move |event: PointerEvent| stage.release(event.pointer_id(), at(&event), event.type_() == "pointerup");
    let wheel = move |event: WheelEvent| {
        event.prevent_default();
        let pixel = place_in(area, f64::from(event.client_x()), f64::from(event.client_y()));
        // Browsers count in pixels or in lines.
        let unit = if event.delta_mode() == 0 { 1.0 } else { 20.0 };
        let factor = (-event.delta_y() * unit / 400.0).clamp(-1.0, 1.0).exp();
        let window = stage.window_of(|look| look.camera);
        stage.set_camera(Some(window.zoomed(factor, pixel)));
    };
    let label = move || {
        let window = stage.window();
        let place = stage.look.with_value(|look| look.looked_at)?;
        let [x, y] = window.pixel(stage.points.with_value(|points| points.get(place))?);
        let name = stage.name(place);
        Some(view! { <span class="map-label" dir="auto" style=format!("left:{x}px;top:{y}px")>{name}</span> })
    };
    view! {
        <div
            class="map"
            class:draws=move || stage.draws.get()
            node_ref=area
            tabindex="0"
            role="application"
            aria-label="Map of items and profiles"
            aria-describedby="map-keys"
            on:pointerdown=down
            on:pointermove=moved
            on:pointerup=up
            on:pointercancel=up
            on:pointerleave=move |_| stage.look_at(None)
            on:wheel=wheel
            on:keydown=move |event| stage.key(&event)
        >
            <canvas node_ref=canvas aria-hidden="true" on:transitionend=move |_| stage.is_dark.set(is_dark(canvas))></canvas>
            <svg aria-hidden="true">
                <path d=move || marks(stage) class="map-marks"></path>
                <path d=move || trace(stage) class="map-line"></path>
            </svg>
            <div role="status">{label}</div>
        </div>
    }
    .into_any()
}

/// The line around points, as SVG has it.
fn trace(stage: Stage) -> String {
    let window = stage.window();
    let step = |(place, &point): (usize, &[f64; 2])| {
        let [x, y] = window.pixel(point);
        format!("{}{x:.1} {y:.1}", if place == 0 { 'M' } else { 'L' })
    };
    stage
        .look
        .with_value(|look| look.line.iter().enumerate().map(step).collect())
}

/// Rings around what is marked and looked at, and lines, as SVG has them.
fn marks(stage: Stage) -> String {
    stage.version.track();
    let window = stage.window();
    let pixel = |place: Place| Some(window.pixel(stage.points.with_value(|points| points.get(place))?));
    stage.look.with_value(|look| {
        let mut path = String::new();
        for [x, y] in look.marked.iter().copied().chain(look.looked_at).filter_map(pixel) {
            path += &format!("M{:.1} {y:.1}a9 9 0 1 0 18 0a9 9 0 1 0 -18 0", x - 9.0);
        }
        for [from, to] in &look.lines {
            if let (Some([a, b]), Some([x, y])) = (pixel(*from), pixel(*to)) {
                path += &format!("M{a:.1} {b:.1}L{x:.1} {y:.1}");
            }
        }
        path
    })
}

fn place_in(area: NodeRef<html::Div>, x: f64, y: f64) -> [f64; 2] {
    match area.get_untracked() {
        Some(area) => {
            let place = area.get_bounding_client_rect();
            [x - place.left(), y - place.top()]
        }
        None => [0.0; 2],
    }
}

fn follow_size(stage: Stage, area: NodeRef<html::Div>) {
    let measure = move || {
        if let Some(Some(area)) = area.try_get_untracked() {
            let size = [area.client_width(), area.client_height()].map(f64::from);
            if size[0] > 0.0 && size != stage.look.with_value(|look| look.size) {
                stage.look.update_value(|look| look.size = size);
                bump(stage.moved);
                bump(stage.settled);
            }
        }
    };
    Effect::new(move |_| {
        area.track();
        request_animation_frame(measure);
    });
    let listener = window_event_listener(ev::resize, move |_| measure());
    on_cleanup(move || listener.remove());
}

/// Paints the picture anew when anything of it changed, once a frame.
fn paint(stage: Stage, canvas: NodeRef<html::Canvas>) {
    Effect::new(move |_| {
        canvas.track();
        stage.moved.track();
        stage.version.track();
        stage.kinds.with(|_| ());
        stage.is_dark.track();
        let was_waiting = stage
            .look
            .try_update_value(|look| std::mem::replace(&mut look.is_waiting, true));
        if was_waiting == Some(false) {
            // The page may be gone by then.
            request_animation_frame(move || {
                if let Some(Some(canvas)) = canvas.try_get_untracked() {
                    put(stage, &canvas);
                }
            });
        }
    });
    Effect::new(move |_| {
        canvas.track();
        request_animation_frame(move || stage.is_dark.try_set(is_dark(canvas)));
    });
}

fn put(stage: Stage, canvas: &HtmlCanvasElement) -> Option<()> {
    let window = stage.window_of(|look| look.camera);
    let density = web_sys::window()?.device_pixel_ratio().clamp(1.0, 2.0);
    let size = window.size.map(|extent| (extent * density) as usize);
    let kinds = untrack(move || stage.shown_kinds());
    let is_dark = stage.is_dark.get_untracked();
    let mut picture = stage.look.try_update_value(|look| {
        look.is_waiting = false;
        std::mem::take(&mut look.picture)
    })?;
    picture.clear(size);
    stage
        .points
        .with_value(|points| picture.draw(points, &kinds, &window, density, is_dark));
    let [width, height] = size.map(|extent| extent as u32);
    if canvas.width() != width || canvas.height() != height {
        canvas.set_width(width);
        canvas.set_height(height);
    }
    let context: CanvasRenderingContext2d = canvas.get_context("2d").ok()??.dyn_into().ok()?;
    let image = ImageData::new_with_u8_clamped_array_and_sh(Clamped(picture.bytes()), width, height).ok()?;
    stage.look.update_value(|look| look.picture = picture);
    context.put_image_data(&image, 0.0, 0.0).ok()
}

/// Whether the text of the page is light: the theme may be the system's.
fn is_dark(canvas: NodeRef<html::Canvas>) -> bool {
    let colour = || {
        let canvas = canvas.try_get_untracked()??;
        let style = web_sys::window()?.get_computed_style(&canvas).ok()??;
        let colour = style.get_property_value("color").ok()?;
        let red = colour.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        red.split(|letter: char| !letter.is_ascii_digit())
            .next()?
            .parse::<u32>()
            .ok()
    };
    colour().is_some_and(|red| red > 127)
}
