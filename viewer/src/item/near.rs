//! The items whose vectors are nearest to an item's. The worker ranks them: it alone holds the vectors.

use eval_core::Cutoff;
use eval_core::report::F16File;
use eval_core::retrieval::Similarity;
use eval_core::scores::ScoredItem;
use leptos::prelude::*;

use super::page::item_link;
use crate::controls::vectors_view;
use crate::items::known::AllItems;
use crate::load::Source;
use crate::state::{Loaded, Memo};
use crate::worker::{Vectors, VectorsState, bytes_of, row_of};

/// So many items are shown.
const NEAREST: usize = 20;

/// Files of up to so many bytes are read without being asked for.
const READ_UNASKED_BYTES: usize = 8 << 20;

/// The nearest items on the page: by the cosine of the vectors of a checkpoint, which lie in `file`.
pub fn near_view(source: &Source, checkpoint: usize, file: F16File, item: u32, items: AllItems) -> AnyView {
    let vectors = expect_context::<Vectors>();
    let bytes = bytes_of(&file);
    let state = {
        let source = source.clone();
        Memo::new(move |_| vectors.state(&source, checkpoint))
    };
    let read = {
        let source = source.clone();
        Callback::new(move |()| vectors.read(source.clone(), checkpoint))
    };
    if bytes <= READ_UNASKED_BYTES && state.get_untracked() == VectorsState::Absent {
        read.run(());
    }
    let source = source.clone();
    let found = Loaded::new(move || {
        let (is_ready, source, file) = (state.get() == VectorsState::Ready, source.clone(), file.clone());
        async move {
            match is_ready {
                true => nearest(vectors, &source, &file, item).await.map(Some),
                false => Ok(None),
            }
        }
    });
    let shown = move || match found.get() {
        Some(Ok(Some(near))) => near_list(near, items),
        Some(Err(problem)) => view! { <p class="problem" role="alert">{problem}</p> }.into_any(),
        _ => ().into_any(),
    };
    view! {
        {move || vectors_view(state.get(), bytes, read)}
        {shown}
    }
    .into_any()
}

/// The nearest first, without the item itself; none for an item beyond the vectors.
async fn nearest(vectors: Vectors, source: &Source, file: &F16File, item: u32) -> Result<Vec<ScoredItem>, String> {
    let Some(row) = row_of(file, item as usize) else {
        return Ok(Vec::new());
    };
    let own = source.part(&file.file, row).await.map_err(|error| error.to_string())?;
    let count = Cutoff::new(NEAREST).map_err(|error| error.to_string())?;
    let ranked = vectors.rank(&own, vec![item], Vec::new(), count, Similarity::Cosine);
    Ok(ranked.await?.0.top().collect())
}

fn near_list(near: Vec<ScoredItem>, items: AllItems) -> AnyView {
    let row = |scored: ScoredItem| {
        view! {
            <tr>
                <th scope="row">{item_link(items, scored.item)}</th>
                <td>{format!("{:.4}", scored.score)}</td>
            </tr>
        }
    };
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label="Nearest items">
            <table class="near">
                <thead><tr><th scope="col">"Item"</th><th scope="col">"Cosine"</th></tr></thead>
                <tbody>{near.into_iter().map(row).collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}
