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
        updates(gpu, small, folder, seed + 60 + number, report)?;
    }
    Ok(())
}

/// The model on the card, in one type.
struct Found {
    encoder: CudaEncoder,
    element: Element,
    name: String,
}

impl Found {
    fn bound(&self, exact: f64, rounded: f64) -> f64 {
        match self.element {
            Element::F32 => exact,
            _ => rounded,
        }
    }
}

const ADAM: AdamConfig = AdamConfig {
    lr: 3e-3,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.01,
    decoupled: true,
};

/// Two whole updates: vectors, the slopes of a loss in them, summed gradients of two batches, and Adam's step. The loss is the distance
/// from random vectors at first, then the contrastive one, whose slopes the card finds. Each side goes the whole way by itself; the
/// processor goes it once for both types of the card.
fn updates(
    gpu: &Gpu,
    small: &Small,
    folder: &Path,
    seed: u64,
    report: &mut dyn FnMut(Check),
) -> Result<(), ModelError> {
    let options = EncoderOptions {
        device: Device::flex(),
        pooling: Some(small.pooling),
        train: true,
    };
    let mut expected = Bert::load(folder, &options)?.into_f64();
    let mut found = Vec::new();
    for element in [Element::F32, Element::Bf16] {
        let options = CudaEncoderOptions {
            gpu: gpu.clone(),
            element,
            pooling: Some(small.pooling),
            train: true,
        };
        found.push(Found {
            encoder: CudaEncoder::load(folder, &options)?,
            element,
            name: format!("{}, {element:?}", small.name),
        });
    }
    for round in 1..=2 {
        for batch in 0..2 {
            let texts = texts(seed + 10 * batch, small.vocabulary);
            let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let tracked = expected.embed_tracked(&texts)?;
            let vectors = tracked.vectors.clone();
            let wanted = uniform_values(seed, 3 + batch as u32, vectors.len(), 2.0);
            let exact = (round == 2).then(|| {
                let vectors: Vec<f64> = vectors.iter().map(|&x| f64::from(x)).collect();
                exactly(&vectors, expected.dimension(), TEMPERATURE)
            });
            let slopes = match &exact {
                Some(exact) => exact.slopes.iter().map(|&slope| slope as f32).collect(),
                None => distance_slopes(&vectors, &wanted),
            };
            expected.backward(tracked, &slopes)?;
            for own in &mut found {
                let name = |what: &str| format!("{}: {what}, round {round}, batch {batch}", own.name);
                let bound = own.bound(1e-5, 3e-2);
                let plain = own.encoder.embed(&texts)?;
                report(Check::new(name("vectors"), &plain, &vectors, bound));
                let tracked = own.encoder.embed_tracked(&texts)?;
                report(Check::new(
                    name("vectors with gradients"),
                    &tracked.vectors,
                    &vectors,
                    bound,
                ));
                if let Some(exact) = &exact {
                    let loss = own.encoder.contrast(&texts, TEMPERATURE, 1)?.loss as f32;
                    report(Check::new(
                        name("contrastive loss"),
                        &[loss],
                        &[exact.loss as f32],
                        bound,
                    ));
                } else {
                    let slopes = distance_slopes(&tracked.vectors, &wanted);
                    own.encoder.backward(tracked, &slopes)?;
                }
            }
            if (round, batch) == (2, 0) {
                // From now on it is written where those beside it are added to.
                forget(expected.trainable(), QUERY)?;
                for own in &mut found {
                    forget(own.encoder.trainable(), QUERY)?;
                }
            }
        }
        let mut rounding = Vec::new();
        for own in &mut found {
            let name = |what: &str| format!("{}: {what}, round {round}", own.name);
            // The contrastive loss divides by the temperature what rounding does to vectors, before the way back begins.
            let rounded = if round == 1 { [6e-2, 4e-2] } else { [0.15, 8e-2] };
            let bounds = [own.bound(2e-5, rounded[0]), own.bound(2e-5, rounded[1])];
            let parameters = own.encoder.trainable();
            rounding = super::gradients(expected.trainable(), parameters, name, bounds, report)?;
            parameters.step(&ADAM, 0.5)?;
        }
        expected.trainable().step(&ADAM, 0.5)?;
        for own in &mut found {
            let name = format!("{}: parameters after a step, round {round}", own.name);
            let bound = own.bound(2e-2, 0.4);
            let parameters = own.encoder.trainable();
            super::values(
                expected.trainable(),
                parameters,
                name,
                (ADAM.lr, &rounding),
                bound,
                report,
            )?;
        }
        for own in &mut found {
            super::align(expected.trainable(), own.encoder.trainable())?;
        }
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
