//! Encoders on a card beside the processor's in f64.

use std::path::Path;

use super::Check;
use super::operations::contrast::exactly;
use crate::cuda::encoder::{CudaEncoder, CudaEncoderOptions};
use crate::cuda::gpu::{Element, Gpu};
use crate::random::{philox, uniform_values};
use crate::reference::distance_slopes;
use crate::{AdamConfig, Bert, Device, Encoder, EncoderOptions, ModelError, Pooling, Trainable, write_initial_encoder};

/// Whose gradient is made together with those of keys and values.
const QUERY: &str = "encoder.layer.0.attention.self.query.weight";

/// Of the contrastive loss.
const TEMPERATURE: f64 = 0.5;

/// A small model.
struct Small {
    name: &'static str,
    config: &'static str,
    vocabulary: u32,
    pooling: Pooling,
}

const SMALL: [Small; 3] = [
    Small {
        name: "bert, no size of it round, mean",
        config: r#"{"model_type": "bert", "vocab_size": 301, "hidden_size": 51, "intermediate_size": 77,
            "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 140, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#,
        vocabulary: 301,
        pooling: Pooling::Mean,
    },
    Small {
        name: "bert, heads of 64, first token",
        config: r#"{"model_type": "bert", "vocab_size": 203, "hidden_size": 192, "intermediate_size": 344,
            "num_hidden_layers": 3, "num_attention_heads": 3, "max_position_embeddings": 200, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#,
        vocabulary: 203,
        pooling: Pooling::Cls,
    },
    Small {
        name: "bert, rows of 1040",
        config: r#"{"model_type": "bert", "vocab_size": 97, "hidden_size": 1040, "intermediate_size": 88,
            "num_hidden_layers": 1, "num_attention_heads": 13, "max_position_embeddings": 131, "type_vocab_size": 1,
            "layer_norm_eps": 1e-6, "hidden_act": "gelu_new"}"#,
        vocabulary: 97,
        pooling: Pooling::Cls,
    },
];

pub(super) fn check(gpu: &Gpu, seed: u64, folder: &Path, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    for (small, number) in SMALL.iter().zip(0..) {
        let path = folder.join("config.json");
        std::fs::write(&path, small.config).map_err(|source| ModelError::io(&path, source))?;
        write_initial_encoder(folder, seed + 50 + number, 0.08)?;
        for element in [Element::F32, Element::Bf16] {
            encoder(gpu, small, folder, element, seed + 60 + number, report)?;
        }
    }
    Ok(())
}

/// Two whole updates: vectors, the slopes of a loss in them, summed gradients of two batches, and Adam's step. Each side goes the whole
/// way by itself; the loss is the distance from random vectors at first, then the contrastive one, whose slopes the card finds.
fn encoder(
    gpu: &Gpu,
    small: &Small,
    folder: &Path,
    element: Element,
    seed: u64,
    report: &mut dyn FnMut(Check),
) -> Result<(), ModelError> {
    let bound = |exact: f64, rounded: f64| match element {
        Element::F32 => exact,
        _ => rounded,
    };
    let mut expected = Bert::load(
        folder,
        &EncoderOptions {
            device: Device::flex(),
            pooling: Some(small.pooling),
            train: true,
        },
    )?
    .into_f64();
    let options = CudaEncoderOptions {
        gpu: gpu.clone(),
        element,
        pooling: Some(small.pooling),
        train: true,
    };
    let mut found = CudaEncoder::load(folder, &options)?;
    let of = |what: &str| format!("{}, {element:?}: {what}", small.name);
    let adam = AdamConfig {
        lr: 3e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
    };
    for round in 1..=2 {
        for batch in 0..2 {
            let texts = texts(seed + 10 * batch, small.vocabulary);
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let name = of(&format!("vectors, round {round}, batch {batch}"));
            report(Check::new(
                name,
                &found.embed(&texts)?,
                &expected.embed(&texts)?,
                bound(2e-5, 3e-2),
            ));
            let (tracked, own) = (expected.embed_tracked(&texts)?, found.embed_tracked(&texts)?);
            let name = of(&format!("vectors with gradients, round {round}, batch {batch}"));
            report(Check::new(name, &own.vectors, &tracked.vectors, bound(2e-5, 3e-2)));
            if round == 1 {
                let wanted = uniform_values(seed, 3 + batch as u32, tracked.vectors.len(), 2.0);
                let slopes = distance_slopes(&tracked.vectors, &wanted);
                expected.backward(tracked, &slopes)?;
                let slopes = distance_slopes(&own.vectors, &wanted);
                found.backward(own, &slopes)?;
            } else {
                drop(own);
                let vectors: Vec<f64> = tracked.vectors.iter().map(|&x| f64::from(x)).collect();
                let exact = exactly(&vectors, expected.dimension(), TEMPERATURE);
                let slopes: Vec<f32> = exact.slopes.iter().map(|&slope| slope as f32).collect();
                expected.backward(tracked, &slopes)?;
                let loss = found.contrast(&texts, TEMPERATURE, 1)?.loss as f32;
                let name = of(&format!("contrastive loss, batch {batch}"));
                report(Check::new(name, &[loss], &[exact.loss as f32], bound(2e-5, 3e-2)));
            }
            if (round, batch) == (2, 0) {
                // From now on it is written where those beside it are added to.
                forget(expected.trainable(), QUERY)?;
                forget(found.trainable(), QUERY)?;
            }
        }
        let name = |what: &str| of(&format!("{what}, round {round}"));
        let bounds = [bound(5e-5, 6e-2), bound(5e-5, 4e-2)];
        let rounding = super::gradients(expected.trainable(), found.trainable(), name, bounds, report)?;
        expected.trainable().step(&adam, 0.5)?;
        found.trainable().step(&adam, 0.5)?;
        let name = name("parameters after a step");
        super::values(
            expected.trainable(),
            found.trainable(),
            name,
            (adam.lr, &rounding),
            bound(2e-2, 0.4),
            report,
        )?;
        super::align(expected.trainable(), found.trainable())?;
    }
    Ok(())
}

/// Takes back the gradient of the parameter of this name.
fn forget(of: &mut dyn Trainable, name: &str) -> Result<(), ModelError> {
    let index = of.trained().iter().position(|spec| spec.name.ends_with(name));
    let index = index.ok_or_else(|| ModelError::Input(format!("no parameter is called {name}")))?;
    of.set_gradient(index, None)
}

/// Texts of one token to some hundred.
fn texts(seed: u64, vocabulary: u32) -> Vec<Vec<u32>> {
    let token = |text: u32, place: u32| philox([text, place, 5, 0], [seed as u32, 11])[0] % vocabulary;
    [1, 7, 64, 65, 130, 2]
        .into_iter()
        .zip(0..)
        .map(|(length, text)| (0..length).map(|place| token(text, place)).collect())
        .collect()
}
