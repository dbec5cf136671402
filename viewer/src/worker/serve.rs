//! The worker's side.

use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::js_sys::{Array, Uint8Array};
use web_sys::{DedicatedWorkerGlobalScope, MessageEvent, MessagePort};

use super::engine::{Engine, Reply};

/// Answers the page's messages from now on, each through the port that came with it.
pub fn serve(scope: &DedicatedWorkerGlobalScope) {
    let mut engine = Engine::default();
    let answer = Closure::<dyn FnMut(MessageEvent)>::new(move |event: MessageEvent| {
        let message: Array = event.data().unchecked_into();
        let reply = answer(&mut engine, &message.get(0), message.get(1));
        let port: MessagePort = message.get(2).unchecked_into();
        // A page that is gone needs no answer.
        _ = port.post_message(&JsValue::from_str(&reply));
    });
    scope.set_onmessage(Some(answer.as_ref().unchecked_ref()));
    // It lives as long as the worker.
    answer.forget();
    _ = scope.post_message(&JsValue::NULL);
}

fn answer(engine: &mut Engine, request: &JsValue, bytes: JsValue) -> String {
    let request = request.as_string().unwrap_or_default();
    let bytes = bytes
        .dyn_into::<Uint8Array>()
        .map(|bytes| bytes.to_vec())
        .unwrap_or_default();
    let reply = match serde_json::from_str(&request) {
        Ok(request) => engine.answer(request, &bytes),
        Err(error) => Reply::Problem(error.to_string()),
    };
    written(&reply)
}

fn written(reply: &Reply) -> String {
    // Numbers and text can always be written.
    serde_json::to_string(reply).unwrap_or_default()
}
