//! The sampler on tiny models: it agrees with the scorer, and a response depends on nothing but its own prompt and key.
#![allow(clippy::unwrap_used)]

mod recorded;

use models::{Decoder, Draws, LanguageModel, LoraConfig, PackedBatch, Policy, Prompt, Response, TrainedPart};
use recorded::{apart, decoder, fixture};

fn draws(slots: usize) -> Draws {
    Draws {
        seed: 9,
        update: 4,
        temperature: 0.8,
        limit: 20,
        end_tokens: vec![7, 11, 60],
        slots,
    }
}

fn prompts(tokens: &[Vec<u32>]) -> Vec<Prompt<'_>> {
    let users = tokens.iter().enumerate();
    users
        .flat_map(|(user, tokens)| {
            (0..2).map(move |sample| Prompt {
                tokens,
                user: user as u32,
                sample,
            })
        })
        .collect()
}

fn token_lists() -> Vec<Vec<u32>> {
    (1..7u32)
        .map(|n| (0..n * 5).map(|i| (i * 37 + n * 11) % 110 + 1).collect())
        .collect()
}

fn models() -> Vec<Decoder> {
    let mut adapted = decoder("gemma", TrainedPart::Nothing);
    adapted.load_adapter(&fixture("adapters/gemma")).unwrap();
    vec![
        adapted,
        decoder("llama", TrainedPart::Nothing),
        decoder("llama_untied", TrainedPart::Nothing),
        decoder("llama_biased", TrainedPart::Nothing),
    ]
}

#[test]
fn the_samplers_log_probabilities_are_the_scorers() {
    let lists = token_lists();
    for mut model in models() {
        let prompts = prompts(&lists);
        let responses = model.sample(&prompts, &draws(5)).unwrap();
        for (prompt, Response { tokens, logprobs, .. }) in prompts.iter().zip(&responses) {
            let batch = PackedBatch::new([(prompt.tokens, &[tokens.as_slice()][..])]);
            let trunk = LanguageModel::trunk(&model, &batch).unwrap();
            let scores = model.score(&batch, &trunk, Policy::Current, 0.8).unwrap();
            let apart = apart(&scores.logprobs, logprobs);
            assert!(apart < 1e-4, "{apart}");
        }
    }
}

#[test]
fn a_response_does_not_depend_on_batch_or_order() {
    let lists = token_lists();
    for mut model in models() {
        let prompts = prompts(&lists);
        let together = model.sample(&prompts, &draws(12)).unwrap();
        for slots in [1, 3, 5] {
            assert_eq!(model.sample(&prompts, &draws(slots)).unwrap(), together);
        }
        let backwards: Vec<Prompt<'_>> = prompts.iter().rev().copied().collect();
        let backwards = model.sample(&backwards, &draws(4)).unwrap();
        assert!(backwards.iter().rev().eq(&together));
    }
}

#[test]
fn a_response_ends_with_its_first_end_token_or_at_the_limit() {
    let lists = token_lists();
    let mut seen = [false; 2];
    for mut model in models() {
        for response in model.sample(&prompts(&lists), &draws(6)).unwrap() {
            let end = response
                .tokens
                .iter()
                .position(|token| draws(1).end_tokens.contains(token));
            assert_eq!(response.ended, end.is_some());
            assert_eq!(response.tokens.len(), end.map_or(20, |end| end + 1));
            seen[usize::from(response.ended)] = true;
        }
    }
    assert_eq!(seen, [true; 2], "both kinds of end occur");
}

#[test]
fn the_sampler_follows_a_changed_adapter() {
    let lists = token_lists();
    let config = LoraConfig {
        rank: 2,
        alpha: 4.0,
        targets: vec!["q_proj".to_owned(), "lm_head".to_owned()],
    };
    let mut model = decoder("gemma", TrainedPart::Lora(config));
    let before = model.sample(&prompts(&lists), &draws(6)).unwrap();
    assert_eq!(
        before,
        decoder("gemma", TrainedPart::Nothing)
            .sample(&prompts(&lists), &draws(6))
            .unwrap()
    );
    let trainable = LanguageModel::trainable(&mut model);
    for index in 0..trainable.trained().len() {
        let values = trainable.values(index).unwrap();
        let more = values.into_iter().map(|value| value + 0.3).collect();
        trainable.set_values(index, more).unwrap();
    }
    assert_ne!(model.sample(&prompts(&lists), &draws(6)).unwrap(), before);
}

#[test]
fn an_unknown_token_in_a_prompt_is_named() {
    let mut model = decoder("llama", TrainedPart::Nothing);
    let prompt = Prompt {
        tokens: &[1, 2, 5000],
        user: 42,
        sample: 0,
    };
    let error = model.sample(&[prompt], &draws(1)).unwrap_err().to_string();
    assert!(
        error.contains("user 42") && error.contains("5000") && error.contains("index 2"),
        "{error}"
    );
}
