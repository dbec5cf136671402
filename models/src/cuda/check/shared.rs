//! What several ranks do on a card, as far as one card shows it: NCCL with a single rank, and the optimizer by parts, beside the
//! processor in f64 and beside the optimizer of whole parameters.

use std::path::Path;

use super::Check;
use super::decoder::{SMALL, texts};
use crate::cuda::decoder::{CudaDecoder, CudaDecoderOptions};
use crate::cuda::gpu::{Element, Gpu};
use crate::cuda::nccl::{Nccl, nccl_unique_id};
use crate::random::uniform_values;
use crate::{
    AdamConfig, Decoder, DecoderOptions, Device, Gradient, LanguageModel, LoraConfig, ModelError, PackedBatch, Policy,
    Trainable, TrainedPart, write_initial_decoder,
};

/// How many parts stand in for as many ranks.
const SHARERS: usize = 3;

const ADAM: AdamConfig = AdamConfig {
    lr: 3e-3,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.01,
    decoupled: true,
};

/// Runs all comparisons, those of NCCL too where `nccl` is true; `seed` makes the inputs.
///
/// # Errors
/// When something cannot be run at all.
pub fn check_shared(gpu: &Gpu, nccl: bool, seed: u64, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    let folder = std::env::temp_dir().join(format!("langptune-check-shared-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|source| ModelError::io(&folder, source))?;
    let outcome = check_in(gpu, nccl, seed, &folder, report);
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn check_in(gpu: &Gpu, nccl: bool, seed: u64, folder: &Path, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    let path = folder.join("config.json");
    std::fs::write(&path, SMALL[0].config).map_err(|source| ModelError::io(&path, source))?;
    write_initial_decoder(folder, seed, 0.08)?;
    if nccl {
        for wire in [Element::F32, Element::Bf16] {
            collectives(gpu, wire, seed, report)?;
        }
    }
    let targets = LoraConfig::ALL_TARGETS.iter().map(|&name| name.to_owned()).collect();
    let lora = TrainedPart::Lora(LoraConfig {
        rank: 9,
        alpha: 12.0,
        targets,
    });
    for (part, trained) in [(lora, "adapters"), (TrainedPart::LastLayers(1), "last block")] {
        for (element, bf16_masters) in [Element::F32, Element::Bf16]
            .into_iter()
            .flat_map(|element| [(element, false), (element, true)])
        {
            let masters = if bf16_masters { " of bf16 numbers" } else { "" };
            let inputs = Inputs {
                gpu,
                nccl,
                folder,
                part: &part,
                element,
                bf16_masters,
                seed,
                name: format!("{trained}{masters}, {element:?}"),
            };
            steps(&inputs, report)?;
        }
    }
    Ok(())
}

fn join(gpu: &Gpu, wire: Element) -> Result<Nccl, ModelError> {
    Nccl::join(gpu, nccl_unique_id()?, [0, 1], wire, Box::new(|| false))
}

/// One rank's sums are its own terms, as far as what they travel in has them.
fn collectives(gpu: &Gpu, wire: Element, seed: u64, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    let mut nccl = join(gpu, wire)?;
    let values = uniform_values(seed, 3, 3_100_003, 1.0);
    let rounded: Vec<f32> = match wire {
        Element::F32 => values.clone(),
        _ => values
            .iter()
            .map(|&value| half::bf16::from_f32(value).to_f32())
            .collect(),
    };
    let mut check = |what: &str, found: &[f32], expected: &[f32]| {
        report(Check::new(
            format!("NCCL, one rank, {wire:?} wire: {what}"),
            found,
            expected,
            0.0,
        ));
    };
    let mut found = values.clone();
    nccl.all_reduce_host(&mut found)?;
    check("all-reduce", &found, &values);
    nccl.broadcast_host(&mut found, 0)?;
    check("broadcast", &found, &values);
    nccl.all_gather_host(&mut found)?;
    check("all-gather", &found, &values);
    check(
        "reduce-scatter of gradients",
        &nccl.reduce_scatter_host(&values)?,
        &rounded,
    );
    let terms = gpu.upload(&values)?;
    nccl.sum_gradients(&terms, values.len())?;
    nccl.wait()?;
    check(
        "all-reduce of gradients",
        &terms.read::<f32>(0, values.len())?,
        &rounded,
    );
    Ok(())
}

struct Inputs<'a> {
    gpu: &'a Gpu,
    nccl: bool,
    folder: &'a Path,
    part: &'a TrainedPart,
    element: Element,
    /// Whether trained parameters are kept in bf16.
    bf16_masters: bool,
    seed: u64,
    name: String,
}

impl Inputs<'_> {
    fn decoder(&self) -> Result<CudaDecoder, ModelError> {
        let options = CudaDecoderOptions {
            gpu: self.gpu.clone(),
            element: self.element,
            part: self.part.clone(),
            seed: self.seed,
        };
        let mut decoder = CudaDecoder::load(self.folder, &options)?;
        self.keep_masters(&mut decoder.parameters)?;
        Ok(decoder)
    }

    fn keep_masters(&self, model: &mut dyn Trainable) -> Result<(), ModelError> {
        match self.bf16_masters {
            true => model.keep_bf16(self.seed),
            false => Ok(()),
        }
    }

    /// The gradient of a parameter at a step; none of every fifth, as where nothing has arrived.
    fn gradient(&self, index: usize, step: u32, count: usize) -> Option<Vec<f32>> {
        let seed = self.seed + 1000 * index as u64;
        (index % 5 != 4).then(|| uniform_values(seed, 11 + step, count, 1.0))
    }
}

/// Two steps of the processor, of the card, over NCCL in both ways, and by parts: the same parameters, and the same model.
fn steps(inputs: &Inputs<'_>, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    let mut expected = Decoder::load(
        inputs.folder,
        &DecoderOptions {
            device: Device::flex(),
            part: inputs.part.clone(),
            seed: inputs.seed,
        },
    )?;
    if !inputs.bf16_masters {
        expected = expected.into_f64();
    }
    // Where values are rounded by what their last bits of f32 are, the processor has them too.
    inputs.keep_masters(expected.trainable())?;
    let mut whole = inputs.decoder()?;
    let counts: Vec<usize> = whole.parameters.trained().iter().map(|spec| spec.scalars()).collect();
    let mut over: Vec<(&str, CudaDecoder)> = Vec::new();
    if inputs.nccl {
        over = vec![("whole", inputs.decoder()?), ("in parts", inputs.decoder()?)];
        let all: Vec<_> = counts.iter().map(|&count| 0..count).collect();
        over[1].1.parameters.keep_parts(&all)?;
    }
    let mut sharers = Vec::new();
    for rank in 0..SHARERS {
        let mut sharer = inputs.decoder()?;
        let parts = counts.iter().map(|&count| {
            let length = count.div_ceil(SHARERS);
            (rank * length).min(count)..((rank + 1) * length).min(count)
        });
        sharer.parameters.keep_parts(&parts.collect::<Vec<_>>())?;
        sharers.push(sharer);
    }
    let mut nccl = inputs.nccl.then(|| join(inputs.gpu, Element::F32)).transpose()?;
    for step in 0..2 {
        let gradients: Vec<_> = (0..counts.len())
            .map(|at| inputs.gradient(at, step, counts[at]))
            .collect();
        let reached: Vec<bool> = gradients.iter().map(Option::is_some).collect();
        let all = [expected.trainable(), &mut whole.parameters as &mut dyn Trainable];
        let all = all.into_iter().chain(
            over.iter_mut()
                .map(|(_, decoder)| &mut decoder.parameters as &mut dyn Trainable),
        );
        for model in all {
            for (index, gradient) in gradients.iter().enumerate() {
                let gradient = gradient.clone().map(|value| Gradient { value, rest: None });
                model.set_gradient(index, gradient)?;
            }
        }
        expected.trainable().step(&ADAM, 0.5)?;
        whole.parameters.step(&ADAM, 0.5)?;
        for (_, decoder) in &mut over {
            if let Some(nccl) = &mut nccl {
                decoder.parameters.step_over(nccl, &reached, &ADAM, 0.5)?;
            }
        }
        share_step(&mut sharers, &gradients)?;
    }
    let values = |model: &dyn Trainable| -> Result<Vec<f32>, ModelError> {
        let all = (0..counts.len()).map(|index| model.values(index));
        Ok(all.collect::<Result<Vec<_>, _>>()?.concat())
    };
    let name = &inputs.name;
    let own = values(&whole.parameters)?;
    let theirs = values(expected.trainable())?;
    let beside = format!("{name}: two steps beside the processor");
    report(match inputs.bf16_masters {
        false => Check::new(beside, &own, &theirs, 1e-5),
        // Where the last bits of f32 decide which neighbour it is, it is the other: at few values.
        true => Check {
            name: format!("{beside}, values that differ"),
            error: own.iter().zip(&theirs).filter(|(x, y)| x != y).count() as f64 / theirs.len() as f64,
            bound: 5e-3,
        },
    });
    let scored = scores(&whole, inputs)?;
    let last = sharers.pop().map(|sharer| (format!("by {SHARERS} parts"), sharer));
    let over = over
        .into_iter()
        .map(|(how, decoder)| (format!("over NCCL, {how}"), decoder));
    for (how, decoder) in over.chain(last) {
        report(Check::new(
            format!("{name}: two steps {how}"),
            &values(&decoder.parameters)?,
            &own,
            0.0,
        ));
        report(Check::new(
            format!("{name}: the model after them"),
            &scores(&decoder, inputs)?,
            &scored,
            0.0,
        ));
    }
    Ok(())
}

/// A step of models that keep a part each, with what ranks would tell each other done here.
fn share_step(sharers: &mut [CudaDecoder], gradients: &[Option<Vec<f32>>]) -> Result<(), ModelError> {
    for (index, gradient) in gradients.iter().enumerate() {
        let Some(gradient) = gradient else { continue };
        let mut moved = Vec::new();
        for sharer in sharers.iter_mut() {
            let part = sharer.parameters.part(index);
            sharer
                .parameters
                .step_part(index, gradient[part.clone()].to_vec(), &ADAM, 0.5)?;
            moved.extend_from_slice(&sharer.parameters.values(index)?[part]);
        }
        for sharer in sharers.iter_mut() {
            sharer.parameters.set_values(index, moved.clone())?;
        }
    }
    Ok(())
}

/// Log-probabilities of a batch: the copies of parameters that the model computes with must have moved too.
fn scores(decoder: &CudaDecoder, inputs: &Inputs<'_>) -> Result<Vec<f32>, ModelError> {
    let texts = texts(inputs.seed, SMALL[0].vocabulary);
    let rows: Vec<(&[u32], Vec<&[u32]>)> = texts
        .iter()
        .map(|(prompt, responses)| (&prompt[..], responses.iter().map(Vec::as_slice).collect()))
        .collect();
    let batch = PackedBatch::new(rows.iter().map(|(prompt, responses)| (*prompt, &responses[..])));
    let trunk = CudaDecoder::trunk(decoder, &batch)?;
    Ok(CudaDecoder::score(decoder, &batch, &trunk, Policy::Current, 1.0)?.logprobs)
}
