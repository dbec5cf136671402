#![allow(clippy::unwrap_used)]

use super::*;

const INPUTS: &str = "[run]\ndataset = \"d\"\n[lm]\nmodel = \"l\"\n[embedder]\nmodel = \"e\"\n";

fn file(text: &str) -> Layer {
    Layer::from_toml(text, Path::new("run.toml")).unwrap()
}

fn inputs() -> Layer {
    file(INPUTS)
}

fn flags(text: &str) -> Layer {
    Layer::from_flags(Source::CommandLine, &toml::from_str(text).unwrap())
}

fn file_error(text: &str) -> String {
    Layer::from_toml(text, Path::new("run.toml")).unwrap_err().to_string()
}

fn resolve_error(layers: &[Layer]) -> String {
    resolve(layers).unwrap_err().to_string()
}

fn preset(name: &str) -> TrainConfig {
    resolve(&[flags(&format!("preset = \"{name}\"\ndataset = \"d\""))]).unwrap()
}

#[test]
fn the_gemma_preset_is_the_published_setting() {
    let config = preset("gemma");
    let schedule = &config.schedule;
    assert_eq!(
        (
            schedule.num_iterations,
            schedule.num_emb_updates,
            schedule.num_lm_updates
        ),
        (5, 800, 200)
    );
    assert_eq!(
        (
            config.lm.per_device_train_batch_size,
            config.lm.gradient_accumulation_steps
        ),
        (1, 16)
    );
    assert_eq!(
        (
            config.embedder.per_device_train_batch_size,
            config.embedder.gradient_accumulation_steps
        ),
        (32, 16)
    );
    assert_eq!(
        (config.rl.reward_type, config.rl.whiten_rewards),
        (RewardType::Ndcg, true)
    );
    assert_eq!((config.rl.eta, config.rl.kl_coef), (1.0, 0.2));
    assert_eq!(config.evaluation.print_sample_output_freq, 100);
    let optimizer = OptimizerConfig {
        algorithm: OptimizerAlgorithm::Adamw,
        lr: 1e-7,
        betas: [0.9, 0.999],
        eps: 1e-6,
        weight_decay: 0.01,
        master_weights: Precision::F32,
    };
    assert_eq!(
        (&config.lm.optimizer, &config.embedder.optimizer),
        (&optimizer, &optimizer)
    );
    let Trainable::Lora(lora) = &config.lm.trainable else {
        panic!("{:?}", config.lm.trainable)
    };
    assert_eq!((lora.lora_rank, lora.lora_alpha, lora.scale()), (1024, 2048.0, 2.0));
    let targets = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "lm_head",
    ];
    assert_eq!(lora.lora_targets, targets);
    assert_eq!(
        (config.lm.model.as_str(), config.lm.template),
        ("google/gemma-2b-it", Some(PromptTemplate::Gemma))
    );
    assert_eq!(config.embedder.model, "mixedbread-ai/mxbai-embed-large-v1");
    assert_eq!(config.embedder.pooling, Some(Pooling::Cls));
}

#[test]
fn the_llama_preset_is_the_published_setting() {
    let config = preset("llama");
    let schedule = &config.schedule;
    assert_eq!(
        (
            schedule.num_iterations,
            schedule.num_emb_updates,
            schedule.num_lm_updates
        ),
        (5, 2500, 500)
    );
    assert_eq!(
        (config.rl.eta, config.rl.kl_coef, config.rl.whiten_rewards),
        (1.0, 0.0, true)
    );
    assert_eq!(config.evaluation.print_sample_output_freq, 500);
    let optimizer = OptimizerConfig {
        algorithm: OptimizerAlgorithm::Adamw,
        lr: 3e-7,
        betas: [0.9, 0.95],
        eps: 1e-6,
        weight_decay: 1e-6,
        master_weights: Precision::F32,
    };
    assert_eq!(
        (&config.lm.optimizer, &config.embedder.optimizer),
        (&optimizer, &optimizer)
    );
    assert_eq!(config.lm.trainable, Trainable::LastLayers { num_layers_unfrozen: 4 });
    assert_eq!(config.lm.template, Some(PromptTemplate::Chat));
    assert_eq!(config.lm.model, "meta-llama/Meta-Llama-3-8B-Instruct");
}

#[test]
fn what_both_presets_share_is_the_published_default() {
    for config in [preset("gemma"), preset("llama")] {
        let rl = &config.rl;
        assert_eq!((rl.response_length, rl.noptepochs, rl.num_gens), (512, 4, 2));
        assert_eq!((rl.temperature, rl.penalty_reward_value), (1.0, 0.0));
        assert_eq!(
            (config.lm.data_max_length, config.embedder.loss_temp, config.run.seed),
            (1024, 0.1, 555_134)
        );
        assert_eq!(config.evaluation.cutoffs(), [20, 10, 5]);
    }
}

#[test]
fn a_later_source_wins_over_an_earlier_one() {
    let preset = flags("preset = \"gemma\"");
    let from_file = file(&format!("{INPUTS}[rl]\neta = 2.0\nkl_coef = 0.3\nnoptepochs = 2"));
    let variables = Layer::from_flags(
        Source::Environment,
        &toml::from_str("eta = 3.0\nkl_coef = 0.4").unwrap(),
    );
    let line = flags("eta = 4.0");
    let config = resolve(&[preset, from_file, variables, line]).unwrap();
    assert_eq!((config.rl.eta, config.rl.kl_coef, config.rl.noptepochs), (4.0, 0.4, 2));
    assert_eq!(config.rl.response_length, 512);
}

#[test]
fn the_strongest_source_chooses_the_preset() {
    let config = resolve(&[
        file(&format!("preset = \"gemma\"\n{INPUTS}")),
        flags("preset = \"llama\""),
    ])
    .unwrap();
    assert_eq!(
        (config.preset, config.schedule.num_emb_updates),
        (Some(Preset::Llama), 2500)
    );
}

#[test]
fn a_saved_configuration_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    for layers in [
        vec![flags(
            "preset = \"gemma\"\ndataset = \"d\"\nlora_rank = 8\ntrace = \"t\"\neos = [\"<end_of_turn>\"]",
        )],
        vec![flags(
            "preset = \"llama\"\ndataset = \"d\"\nemb_lr = 1e-5\nlm_revision = \"v1\"",
        )],
        vec![
            inputs(),
            flags("trainable = \"full\"\nwhiten_rewards = false\nprofiles = \"none\""),
        ],
    ] {
        let config = resolve(&layers).unwrap();
        config.save(folder.path()).unwrap();
        assert_eq!(TrainConfig::load(&folder.path().join("config.toml")).unwrap(), config);
    }
}

#[test]
fn every_key_of_a_saved_configuration_can_be_set_by_a_flag() {
    fn keys(table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value.as_table() {
                Some(inner) => keys(inner, &format!("{key}."), found),
                None => found.push(key),
            }
        }
    }
    let everything = "preset = \"gemma\"\ndataset = \"d\"\ntask_item_dataset = \"i\"\ntrace = \"t\"\nlm_revision = \"a\"\nemb_revision = \"a\"
        output_dir_lm = \"o\"\noutput_dir_emb = \"o\"";
    let mut found = Vec::new();
    for trained in ["", "\nnum_layers_unfrozen = 2"] {
        let config = resolve(&[flags(&format!("{everything}{trained}"))]).unwrap();
        keys(&toml::from_str(&config.to_toml().unwrap()).unwrap(), "", &mut found);
    }
    found.sort();
    found.dedup();
    let mut known: Vec<_> = KEYS
        .iter()
        .flat_map(|entry| entry.keys)
        .map(|key| (*key).to_owned())
        .collect();
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn hub_ids_of_datasets_stay_and_folders_become_absolute() {
    let mut config = resolve(&[
        flags("dataset = \"owner/sets@v1\"\ntask_item_dataset = \"./items\""),
        flags("lm_model = \"l\"\nemb_model = \"e\""),
    ])
    .unwrap();
    config.make_paths_absolute().unwrap();
    assert_eq!(config.run.dataset.to_str(), Some("owner/sets@v1"));
    let items = config.run.item_dataset.unwrap();
    assert!(items.is_absolute() && items.ends_with("items"), "{items:?}");
}

#[test]
fn the_embedder_accumulates_as_much_as_the_language_model_unless_told() {
    let config = resolve(&[inputs(), flags("gradient_accumulation_steps = 5")]).unwrap();
    assert_eq!(config.embedder.gradient_accumulation_steps, 5);
    let told = resolve(&[inputs(), flags("emb_gradient_accumulation_steps = 1")]).unwrap();
    assert_eq!(
        (
            told.lm.gradient_accumulation_steps,
            told.embedder.gradient_accumulation_steps
        ),
        (16, 1)
    );
}

#[test]
fn a_rank_alone_keeps_the_scale_of_the_adapters() {
    let config = resolve(&[flags("preset = \"gemma\"\ndataset = \"d\"\nlora_rank = 8")]).unwrap();
    let Trainable::Lora(lora) = config.lm.trainable else {
        panic!()
    };
    assert_eq!((lora.lora_rank, lora.lora_alpha), (8, 16.0));
}

#[test]
fn a_setting_of_another_kind_changes_what_is_trained() {
    let last = resolve(&[flags("preset = \"gemma\"\ndataset = \"d\"\nnum_layers_unfrozen = 2")]).unwrap();
    assert_eq!(last.lm.trainable, Trainable::LastLayers { num_layers_unfrozen: 2 });
    let lora = resolve(&[flags("preset = \"llama\"\ndataset = \"d\"\nlora_rank = 4")]).unwrap();
    assert!(matches!(
        lora.lm.trainable,
        Trainable::Lora(LoraConfig { lora_rank: 4, .. })
    ));
    let full = resolve(&[flags("preset = \"llama\"\ndataset = \"d\"\ntrainable = \"full\"")]).unwrap();
    assert_eq!(full.lm.trainable, Trainable::Full);
}

#[test]
fn settings_of_two_kinds_in_one_source_are_refused() {
    let both = resolve_error(&[inputs(), flags("lora_rank = 4\nnum_layers_unfrozen = 2")]);
    assert!(
        both.contains("--num-layers-unfrozen") && both.contains("--trainable lora"),
        "{both}"
    );
    let wrong = resolve_error(&[inputs(), flags("trainable = \"full\"\nlora_alpha = 2.0")]);
    assert!(wrong.contains("--lora-alpha belongs to --trainable lora"), "{wrong}");
}

#[test]
fn the_presets_pooling_goes_with_its_embedder() {
    let other = resolve(&[flags("preset = \"gemma\"\ndataset = \"d\"\nemb_model = \"minilm\"")]).unwrap();
    assert_eq!(other.embedder.pooling, None);
    let asked = resolve(&[flags(
        "preset = \"gemma\"\ndataset = \"d\"\nemb_model = \"m\"\nemb_pooling = \"mean\"",
    )]);
    assert_eq!(asked.unwrap().embedder.pooling, Some(Pooling::Mean));
}

#[test]
fn the_raw_history_needs_no_language_model_and_trains_none() {
    let config = resolve(&[flags(
        "dataset = \"d\"\nemb_model = \"e\"\nprofiles = \"none\"\ngradient_accumulation_steps = 1",
    )]);
    let config = config.unwrap();
    assert_eq!((config.schedule.num_lm_updates, config.lm.model.as_str()), (0, ""));
    assert_eq!(config.total_updates(), 5 * 800);
}

#[test]
fn what_is_missing_is_named_with_flag_variable_and_key() {
    assert_eq!(
        resolve_error(&[flags("emb_model = \"e\"\nlm_model = \"l\"")]),
        "no prepared dataset: give --dataset, the environment variable LANGPTUNE_DATASET, or `run.dataset` in a --config file"
    );
    assert!(resolve_error(&[flags("dataset = \"d\"\nlm_model = \"l\"")]).contains("--emb-model"));
    assert!(resolve_error(&[flags("dataset = \"d\"\nemb_model = \"e\"")]).contains("--lm-model"));
}

#[test]
fn values_out_of_range_name_their_flag() {
    for (setting, message) in [
        ("topk = 0", "--topk: expected at least 1, found 0"),
        ("eta = nan", "--eta: expected a finite number, found NaN"),
        (
            "task_temperature = 0.0",
            "--task.temperature: expected a finite number above 0, found 0",
        ),
        (
            "num_gens = 4",
            "--num-gens: expected 2 (the loss compares a pair), found 4",
        ),
        ("lora_rank = 0", "--lora-rank: expected at least 1, found 0"),
        (
            "lora_dropout = 0.1",
            "--lora-dropout: expected 0 (the published setting; no other is implemented), found 0.1",
        ),
        (
            "num_layers_unfrozen = 0",
            "--num-layers-unfrozen: expected at least 1, found 0",
        ),
        ("noptepochs = 0", "--noptepochs: expected at least 1, found 0"),
        ("lr = -1.0", "--lr: expected a finite number, 0 or more, found -1"),
        (
            "emb_lr = inf",
            "--emb-lr: expected a finite number, 0 or more, found inf",
        ),
        ("eps = 0.0", "--eps: expected a finite number above 0, found 0"),
        (
            "betas = [0.9, 1.0]",
            "--betas: expected two numbers from 0 up to, not including, 1, found 1",
        ),
        (
            "loss_temp = -0.1",
            "--loss-temp: expected a finite number above 0, found -0.1",
        ),
        (
            "lora_targets = []",
            "--lora-targets: expected names of layers, e.g. q_proj,v_proj, found ",
        ),
        (
            "emb_per_device_train_batch_size = 1",
            "--emb-per-device-train-batch-size: expected at least 2 (negatives come from the batch), found 1",
        ),
    ] {
        assert_eq!(resolve_error(&[inputs(), flags(setting)]), message);
    }
}

#[test]
fn whitening_needs_eight_rewards() {
    assert_eq!(
        resolve_error(&[inputs(), flags("gradient_accumulation_steps = 3")]),
        "--whiten-rewards: expected at least 8 rewards an update on a device, found 2 profiles × batch 1 × accumulation 3 \
         = 6: raise --gradient-accumulation-steps or --per-device-train-batch-size, or pass --no-whiten-rewards"
    );
    assert!(resolve(&[inputs(), flags("gradient_accumulation_steps = 4")]).is_ok());
    assert!(
        resolve(&[
            inputs(),
            flags("gradient_accumulation_steps = 3\nwhiten_rewards = false")
        ])
        .is_ok()
    );
}

#[test]
fn an_unknown_key_names_line_and_nearest_key() {
    assert_eq!(
        file_error("[rl]\n# a comment\nkl_coeff = 1.0\n"),
        "run.toml, line 3: unknown key `rl.kl_coeff`; did you mean `rl.kl_coef`?"
    );
    assert_eq!(
        file_error("lr = 1e-5\n"),
        "run.toml, line 1: unknown key `lr`; did you mean `lm.optimizer.lr`?"
    );
    assert_eq!(
        file_error("\n[zebra]\nx = 1\n"),
        "run.toml, line 2: unknown key `zebra`; docs/configuration.md lists the keys"
    );
}

#[test]
fn a_value_of_the_wrong_type_names_line_and_key() {
    assert_eq!(
        file_error("[lm.optimizer]\nlr = \"fast\"\n"),
        "run.toml, line 2: `lm.optimizer.lr`: invalid type: string \"fast\", expected f64"
    );
    let negative = file_error("[schedule]\nnum_lm_updates = -1\n");
    assert!(
        negative.starts_with("run.toml, line 2: `schedule.num_lm_updates`: invalid value"),
        "{negative}"
    );
    let choice = file_error("[rl]\nreward_type = \"map\"\n");
    assert!(
        choice.contains("`rl.reward_type`") && choice.contains("`ndcg`"),
        "{choice}"
    );
    let kind = file_error("[lm.trainable]\nkind = \"qlora\"\n");
    assert!(
        kind.contains("`lm.trainable.kind`") && kind.contains("last-n"),
        "{kind}"
    );
    let layers = file_error("[lm.trainable]\nnum_layers_unfrozen = \"all\"\n");
    assert!(layers.contains("`lm.trainable.num_layers_unfrozen`"), "{layers}");
}

#[test]
fn broken_toml_names_the_line() {
    let error = file_error("[run]\nseed = \n");
    assert!(error.starts_with("run.toml, line 2: "), "{error}");
}

#[test]
fn whole_numbers_serve_where_fractions_are_meant() {
    let config = resolve(&[file(&format!("{INPUTS}[rl]\nkl_coef = 0\n"))]).unwrap();
    assert_eq!(config.rl.kl_coef, 0.0);
}

#[test]
fn cutoffs_halve_until_odd() {
    let cutoffs = |topk| {
        EvaluationConfig {
            topk,
            ..preset("gemma").evaluation
        }
        .cutoffs()
    };
    assert_eq!(
        (cutoffs(20), cutoffs(12), cutoffs(5), cutoffs(1)),
        (vec![20, 10, 5], vec![12, 6, 3], vec![5], vec![1])
    );
}
