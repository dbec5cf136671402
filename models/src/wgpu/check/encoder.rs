//! Encoders: two whole updates, each side by itself.

use std::path::Path;

use burn::tensor::Device;

use super::{Comparison, Report, VALUES, gradients, steps, write_config};
use crate::random::{philox, uniform_values};
use crate::reference::distance_slopes;
use crate::{Bert, Encoder, EncoderOptions, ModelError, Pooling, write_initial_encoder};

/// Small models of which no size is round.
const SMALL: [(&str, u32, Pooling, &str); 2] = [
    (
        "bert, mean",
        301,
        Pooling::Mean,
        r#"{"model_type": "bert", "vocab_size": 301, "hidden_size": 51, "intermediate_size": 77,
            "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 140, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#,
    ),
    (
        "bert, first token",
        203,
        Pooling::Cls,
        r#"{"model_type": "bert", "vocab_size": 203, "hidden_size": 192, "intermediate_size": 344,
            "num_hidden_layers": 3, "num_attention_heads": 3, "max_position_embeddings": 200, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu_new"}"#,
    ),
];

pub(super) fn check(device: &Device, seed: u64, folder: &Path, report: Report<'_>) -> Result<(), ModelError> {
    for ((name, vocabulary, pooling, config), number) in SMALL.into_iter().zip(0..) {
        write_config(folder, config)?;
        write_initial_encoder(folder, seed + 50 + number, 0.08)?;
        let load = |device: &Device| {
            let options = EncoderOptions {
                device: device.clone(),
                pooling: Some(pooling),
                train: true,
            };
            Bert::load(folder, &options)
        };
        let (mut expected, mut found) = (load(&Device::flex())?.into_f64(), load(device)?);
        for round in 1..=2 {
            let of = |what: &str| format!("{name}: {what}, round {round}");
            // Gradients of two batches, which are summed.
            for batch in 0..2 {
                let texts = texts(seed + 10 * batch, vocabulary);
                let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
                let (tracked, plain) = (expected.embed_tracked(&texts)?, found.embed(&texts)?);
                report(Comparison::new(of("vectors"), &plain, &tracked.vectors, VALUES));
                let own = found.embed_tracked(&texts)?;
                let name = of("vectors with gradients");
                report(Comparison::new(name, &own.vectors, &tracked.vectors, VALUES));
                let wanted = uniform_values(seed, 3 + batch as u32, tracked.vectors.len(), 2.0);
                let slopes = distance_slopes(&tracked.vectors, &wanted);
                expected.backward(tracked, &slopes)?;
                let slopes = distance_slopes(&own.vectors, &wanted);
                found.backward(own, &slopes)?;
            }
            let rounding = gradients(expected.trainable(), found.trainable(), of("gradients"), report)?;
            let name = of("parameters after a step");
            steps(expected.trainable(), found.trainable(), (name, &rounding), report)?;
        }
    }
    Ok(())
}

/// Texts of one token to some hundred.
fn texts(seed: u64, vocabulary: u32) -> Vec<Vec<u32>> {
    let token = |text: u32, place: u32| philox([text, place, 6, 0], [seed as u32, 11])[0] % vocabulary;
    [1, 7, 64, 65, 130, 2]
        .into_iter()
        .zip(0..)
        .map(|(length, text)| (0..length).map(|place| token(text, place)).collect())
        .collect()
}
