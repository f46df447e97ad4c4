//! `GET /events`: what the core tells, and each change of the module table.

use std::collections::BTreeMap;

use hyper::Response;
use hyper::body::Bytes;
use tokio::sync::broadcast::error::RecvError;

use super::body::{self, Body, Chunks};
use super::route::Context;
use super::wire::{Event, ModuleView};

/// Answers with a stream that ends when the client leaves or the server ends. What happens
/// after this call is in the stream.
pub(super) fn stream(context: &Context) -> Response<Body> {
    let (chunks, response) = body::stream("application/x-ndjson");
    let mut status = context.handle.status();
    let mut events = context.handle.events();
    let mut context = context.clone();
    tokio::spawn(async move {
        let mut known = BTreeMap::new();
        status.mark_changed();
        loop {
            let news = tokio::select! {
                biased;
                () = chunks.closed() => return,
                () = context.closed() => return,
                changed = status.changed() => match changed {
                    Ok(()) => changes(&mut known, &status.borrow_and_update()),
                    Err(_) => return,
                },
                event = events.recv() => match event {
                    Ok(event) => vec![event],
                    Err(RecvError::Lagged(count)) => vec![Event::Missed { count }],
                    Err(RecvError::Closed) => return,
                },
            };
            if !send(&news, &chunks).await {
                return;
            }
        }
    });
    response
}

/// What turns the table `known` into `current`; `known` is brought up to date.
fn changes(known: &mut BTreeMap<String, ModuleView>, current: &[ModuleView]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    known.retain(|name, _| {
        let stays = current.iter().any(|view| view.name == *name);
        if !stays {
            events.push(Event::ModuleRemoved { name: name.clone() });
        }
        stays
    });
    for view in current {
        if known.get(&view.name) != Some(view) {
            known.insert(view.name.clone(), view.clone());
            let module = Box::new(view.clone());
            events.push(Event::Module { module });
        }
    }
    events
}

async fn send(events: &[Event], chunks: &Chunks) -> bool {
    let mut text = Vec::new();
    for event in events {
        serde_json::to_writer(&mut text, event)
            .expect("invariant: an event is JSON and a vector takes all");
        text.push(b'\n');
    }
    text.is_empty() || chunks.send(Ok(Bytes::from(text))).await.is_ok()
}
