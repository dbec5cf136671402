#![allow(clippy::unwrap_used)]

use std::ffi::OsString;

use clap::CommandFactory;

use super::*;
use crate::cli::{Cli, argv};
use crate::config::{Collectives, KEYS, Precision, Preset, Profiles, Trainable};

const GEMMA: &str = "--num_lm_updates 200 --num_emb_updates 800 --num_iterations 5 --gradient_accumulation_steps 16 \
    --per_device_train_batch_size 1 --emb_per_device_train_batch_size 32 --print_sample_output_freq 100 --lr 1e-7 \
    --emb_lr 1e-7 --task.query_dataset D --task.item_dataset D --reward_type ndcg --exp_name N --eta 1.0 \
    --whiten_rewards --kl_coef 0.2 --emb_model mixedbread-ai/mxbai-embed-large-v1 --lm_model google/gemma-2b-it \
    --lora_rank 1024 --lora_alpha 2048";

const LLAMA: &str = "--num_lm_updates 500 --num_emb_updates 2500 --num_iterations 5 --gradient_accumulation_steps 16 \
    --per_device_train_batch_size 1 --emb_per_device_train_batch_size 32 --print_sample_output_freq 500 --lr 3e-7 \
    --emb_lr 3e-7 --task.query_dataset D --task.item_dataset D --reward_type ndcg --exp_name N --eta 1.0 \
    --whiten_rewards --kl_coef 0 --emb_model mixedbread-ai/mxbai-embed-large-v1 \
    --lm_model meta-llama/Meta-Llama-3-8B-Instruct --num_layers_unfrozen 4";

fn parse(line: &str) -> Result<TrainArgs, clap::Error> {
    let words = ["langptune", "train"]
        .into_iter()
        .chain(line.split_whitespace())
        .map(OsString::from);
    let matches = Cli::command().try_get_matches_from(argv::normalise(words, &Cli::command()))?;
    TrainArgs::from_arg_matches(matches.subcommand_matches("train").unwrap())
}

fn resolved(line: &str, variables: &[(&str, &str)]) -> anyhow::Result<(TrainConfig, RunControl)> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    resolve(&parse(line)?, variables)
}

fn config(line: &str) -> TrainConfig {
    resolved(line, &[]).unwrap().0
}

fn error(line: &str, variables: &[(&str, &str)]) -> String {
    resolved(line, variables).unwrap_err().to_string()
}

#[test]
fn the_published_commands_give_their_presets() {
    let gemma = config(&format!("--preset gemma {GEMMA}"));
    assert_eq!(gemma, config("--preset gemma --dataset D --exp-name N"));
    assert_eq!(
        (gemma.run.dataset.to_str(), gemma.run.output.to_str()),
        (Some("D"), Some("runs/N"))
    );
    assert_eq!(
        config(&format!("--preset llama {LLAMA}")),
        config("--preset llama --dataset D --exp-name N")
    );
}

#[test]
fn the_published_commands_stand_without_a_preset_too() {
    let llama = config(LLAMA);
    assert_eq!(llama.lm.trainable, Trainable::LastLayers { num_layers_unfrozen: 4 });
    assert_eq!(
        (llama.preset, llama.rl.kl_coef, llama.lm.optimizer.lr),
        (None, 0.0, 3e-7)
    );
}

#[test]
fn every_other_published_flag_is_accepted() {
    let line = "--preset gemma --dataset D --task.response_length 256 --task.data_max_length 900 --task.temperature 0.7 \
        --task.penalty_reward_value -1 --no-whiten_rewards --weight_decay 0 --loss_reduction sum --lora_dropout 0 \
        --noptepochs 2 --num_gens 2 --topk 10 --loss_temp 0.05 --run_eval --output_dir_lm L --output_dir_emb E --track \
        --seed 1 --prompt Q --optimizer adam --eps 1e-8 --local_rollout_forward_batch_size 2 \
        --per_device_eval_batch_size 3 --emb_batch_size 4 --score_batch_size 5";
    let config = config(line);
    assert_eq!(
        (
            config.rl.response_length,
            config.lm.data_max_length,
            config.rl.temperature
        ),
        (256, 900, 0.7)
    );
    assert_eq!(
        (config.rl.penalty_reward_value, config.rl.whiten_rewards),
        (-1.0, false)
    );
    assert_eq!(
        (config.lm.optimizer.weight_decay, config.embedder.optimizer.weight_decay),
        (0.0, 0.0)
    );
    assert_eq!(
        (config.embedder.query_prefix.as_str(), config.embedder.batch_size),
        ("Q", 4)
    );
    assert_eq!(
        (
            config.evaluation.per_device_eval_batch_size,
            config.evaluation.score_batch_size
        ),
        (3, 5)
    );
}

#[test]
fn yes_or_no_flags_have_all_their_forms() {
    for (form, expected) in [
        ("--whiten_rewards", true),
        ("--whiten-rewards", true),
        ("--whiten_rewards True", true),
        ("--whiten_rewards=False", false),
        ("--whiten_rewards False", false),
        ("--no-whiten_rewards", false),
        ("--no_whiten_rewards", false),
        ("--no-whiten-rewards", false),
    ] {
        assert_eq!(
            config(&format!("--preset gemma --dataset D {form}")).rl.whiten_rewards,
            expected,
            "{form}"
        );
    }
}

#[test]
fn dashes_underscores_and_equals_signs_mean_the_same() {
    let one = config("--preset gemma --task.query-dataset D --task.response-length=300");
    assert_eq!(
        one,
        config("--preset gemma --task.query_dataset=D --task.response_length 300")
    );
    assert_eq!(one, config("--preset gemma --dataset D --response-length 300"));
}

#[test]
fn two_different_datasets_are_refused() {
    let message = error("--preset gemma --dataset A --task.query_dataset B", &[]);
    assert!(
        message.contains("--dataset is A but --task.query-dataset is B") && message.contains("give one of them"),
        "{message}"
    );
}

#[test]
fn items_may_come_from_another_place() {
    let config = config("--preset gemma --task.query_dataset owner/sessions --task.item_dataset owner/items@v1");
    let (sessions, items) = (&config.run.dataset, config.run.item_dataset.as_ref());
    assert_eq!(sessions.to_str(), Some("owner/sessions"));
    assert_eq!(items.and_then(|items| items.to_str()), Some("owner/items@v1"));
}

#[test]
fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(
        &path,
        "[run]\ndataset = \"file\"\nseed = 1\n[rl]\neta = 1.5\nnoptepochs = 3\n",
    )
    .unwrap();
    let variables = [
        ("LANGPTUNE_SEED", "2"),
        ("LANGPTUNE_ETA", "2.5"),
        ("LANGPTUNE_PRESET", "llama"),
        ("LANGPTUNE_CONFIG", path.to_str().unwrap()),
        ("LANGPTUNE_TASK_QUERY_DATASET", "variable"),
        ("LANGPTUNE_LM", "alias"),
        ("LANGPTUNE_WHITEN_REWARDS", "False"),
        ("LANGPTUNE_LR", ""),
        ("LANGPTUNE_SOMETHING_ELSE", "?"),
        ("LR", "9"),
    ];
    let (config, _) = resolved("--seed 3", &variables).unwrap();
    assert_eq!((config.run.seed, config.rl.eta, config.rl.noptepochs), (3, 2.5, 3));
    assert_eq!((config.preset, config.lm.optimizer.lr), (Some(Preset::Llama), 3e-7));
    assert_eq!(
        (config.run.dataset.to_str(), config.lm.model.as_str()),
        (Some("variable"), "alias")
    );
    assert!(!config.rl.whiten_rewards);
    assert_eq!(
        resolved("--dataset line", &variables).unwrap().0.run.dataset.to_str(),
        Some("line")
    );
}

#[test]
fn a_bad_variable_is_named() {
    let message = error("--preset gemma --dataset D", &[("LANGPTUNE_TOPK", "many")]);
    assert!(
        message.starts_with("environment variable LANGPTUNE_TOPK: invalid value 'many'"),
        "{message}"
    );
}

#[test]
fn what_holds_for_one_call_is_no_part_of_the_configuration() {
    let (config, control) = resolved(
        "--preset gemma --dataset D --overwrite --stop_after 7 --shard_optimizer false \
            --gradient_precision bf16 --print_config",
        &[],
    )
    .unwrap();
    assert_eq!(
        control,
        RunControl {
            overwrite: true,
            resume: false,
            stop_after: Some(7),
            watchdog_secs: None,
            sharing: Sharing {
                shard_optimizer: false,
                collectives: Collectives::Auto,
                gradient_precision: Precision::Bf16
            },
            print_config: true
        }
    );
    assert_eq!(config, self::config("--preset gemma --dataset D"));
}

#[test]
fn our_own_options_reach_the_configuration() {
    let line = "--lm L --embedder E --dataset D --output R --device cuda --trainable lora --lora_targets q_proj,v_proj \
        --emb_gradient_accumulation_steps 2 --emb_pooling mean --eos <end_of_turn>,<eot> --query_prefix x \
        --trace T --report_embeddings --rollout_batch 3 --betas 0.8,0.9 --template chat";
    let config = config(line);
    let Trainable::Lora(lora) = &config.lm.trainable else {
        panic!("{:?}", config.lm.trainable)
    };
    assert_eq!(lora.lora_targets, ["q_proj", "v_proj"]);
    assert_eq!((config.lm.model.as_str(), config.embedder.model.as_str()), ("L", "E"));
    assert_eq!(config.lm.extra_eos, ["<end_of_turn>", "<eot>"]);
    assert_eq!(
        (config.lm.optimizer.betas, config.embedder.optimizer.betas),
        ([0.8, 0.9], [0.8, 0.9])
    );
    assert!(config.evaluation.report_embeddings);
    let raw = self::config("--embedder E --dataset D --profiles none");
    assert_eq!(raw.run.profiles, Profiles::None);
}

#[test]
fn every_flag_of_the_table_is_declared_and_every_declared_one_is_in_it() {
    let command = TrainArgs::augment_args(Command::new("train"));
    let mut declared: Vec<_> = command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .map(str::to_owned)
        .collect();
    let beside = [
        "config",
        "overwrite",
        "resume",
        "stop-after",
        "watchdog-secs",
        "shard-optimizer",
        "collectives",
        "gradient-precision",
        "print-config",
        "task.query-dataset",
    ];
    declared.retain(|flag| !beside.contains(&flag.as_str()));
    let mut known: Vec<_> = KEYS.iter().map(|entry| entry.flag.to_owned()).collect();
    declared.sort();
    known.sort();
    assert_eq!(declared, known);
}

#[test]
fn every_declared_flag_has_one_line_of_help_and_its_own_field() {
    let command = TrainArgs::augment_args(Command::new("train"));
    for argument in command.get_arguments() {
        let flag = argument.get_long().unwrap();
        assert!(argument.get_help().is_some(), "{flag}");
        assert_eq!(argument.get_id().as_str(), flag.replace(['.', '-'], "_"));
    }
}

#[test]
fn a_process_in_the_place_of_a_failed_one_goes_on_with_what_that_one_began() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_str().unwrap();
    let line = format!("--preset gemma --dataset D --output {output}");
    let restarted = |line: &str, started: u64| {
        let started = started.to_string();
        let control = resolved(line, &[("LANGPTUNE_RESTARTED", &started)]).unwrap().1;
        (control.resume, control.overwrite)
    };
    assert_eq!(restarted(&line, 1000), (true, false));
    // A run that is to be replaced is not gone on with, until it has been.
    let replacing = format!("{line} --overwrite");
    assert_eq!(restarted(&replacing, 1000), (false, true));
    config(&line).save(folder.path()).unwrap();
    assert_eq!(restarted(&replacing, 1000), (true, false));
    assert_eq!(restarted(&replacing, u64::MAX), (false, true));
}
