//! The page's side.

use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, future_to_promise};
use web_sys::js_sys::{Array, Promise, Uint8Array};
use web_sys::{MessageChannel, MessageEvent, WorkerOptions, WorkerType};

use super::engine::{Engine, Reply, Request};
use crate::download::address_of;
use crate::fetch;
use crate::state::{LocalValue, RwSignal};

/// The worker's script, a file beside the page or inside of it.
const SCRIPT: &str = "worker.js";

/// Computes beside the page; it is started by the first request.
#[derive(Clone, Copy, Debug)]
pub struct Worker {
    /// Gives the worker once it runs.
    started: LocalValue<Option<Promise>>,
    /// What computes where there is no worker.
    here: LocalValue<Engine>,
    /// Why there is no worker.
    pub absence: RwSignal<Option<String>>,
}

impl Worker {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self {
            started: LocalValue::new(None),
            here: LocalValue::new(Engine::default()),
            absence: RwSignal::new(None),
        }
    }

    /// Has a request done; the memory of `bytes` is handed over.
    ///
    /// # Errors
    /// In words for the page: what was asked for cannot be done, or the worker ended.
    pub async fn ask(self, request: Request, bytes: Option<Uint8Array>) -> Result<Reply, String> {
        let reply = match self.worker().await {
            Some(worker) => match asked(&worker, &request, bytes).await {
                Ok(reply) => reply,
                Err(reason) => {
                    // The next request starts another one.
                    worker.terminate();
                    self.started.try_set_value(None);
                    return Err(format!("The worker ended ({}).", fetch::said(&reason)));
                }
            },
            None => {
                let bytes = bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
                let answer = self.here.try_update_value(|engine| engine.answer(request, &bytes));
                answer.ok_or("The page is gone.")?
            }
        };
        match reply {
            Reply::Problem(problem) => Err(problem),
            reply => Ok(reply),
        }
    }

    /// The worker; `None` where there is none.
    async fn worker(self) -> Option<web_sys::Worker> {
        let started = self.started.try_update_value(|started| {
            let start = || future_to_promise(async { start().await.map(JsValue::from) });
            started.get_or_insert_with(start).clone()
        });
        match JsFuture::from(started?).await {
            Ok(worker) => Some(worker.unchecked_into()),
            Err(reason) => {
                self.absence.try_set(Some(fetch::said(&reason)));
                None
            }
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

async fn start() -> Result<web_sys::Worker, JsValue> {
    let options = WorkerOptions::new();
    let script = match fetch::inside(SCRIPT).await {
        // Inside of a page it is no module.
        Some(script) => address_of(&script?, "text/javascript")?,
        None => {
            options.set_type(WorkerType::Module);
            SCRIPT.to_owned()
        }
    };
    let worker = web_sys::Worker::new_with_options(&script, &options)?;
    let first_word = Promise::new(&mut |resolve, reject| {
        worker.set_onmessage(Some(&resolve));
        worker.set_onerror(Some(&reject));
    });
    worker.post_message(&wasm_bindgen::module())?;
    JsFuture::from(first_word).await?;
    worker.set_onmessage(None);
    Ok(worker)
}

async fn asked(worker: &web_sys::Worker, request: &Request, bytes: Option<Uint8Array>) -> Result<Reply, JsValue> {
    let text = serde_json::to_string(request).map_err(|error| JsValue::from_str(&error.to_string()))?;
    let channel = MessageChannel::new()?;
    let (ours, theirs) = (channel.port1(), channel.port2());
    let answer = Promise::new(&mut |resolve, reject| {
        ours.set_onmessage(Some(&resolve));
        worker.set_onerror(Some(&reject));
    });
    let mut handed_over = Array::of1(&theirs);
    handed_over.extend(bytes.iter().map(Uint8Array::buffer));
    let message = Array::of3(&JsValue::from_str(&text), &bytes.into(), &theirs);
    worker.post_message_with_transfer(&message, &handed_over)?;
    let event: MessageEvent = JsFuture::from(answer).await?.unchecked_into();
    ours.close();
    let text = event.data().as_string().unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| JsValue::from_str(&error.to_string()))
}
