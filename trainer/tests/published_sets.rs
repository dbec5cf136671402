//! Published sets as a user meets them: from folders and from a hub, trained and evaluated on, and exported.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn fixture(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(path);
    path.to_str().unwrap().to_owned()
}

fn langptune(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    command.args(arguments);
    command
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A hub that gives the folders of the fixtures `published/NAME` as datasets `owner/NAME`.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap())));
    endpoint
}

fn answer(mut stream: TcpStream) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    let authorised = headers.iter().any(|line| line == "authorization: bearer hf_secret");
    let path = request.split(' ').nth(1).unwrap().replace("%2F", "/");
    let (status, extra, body) = if !authorised {
        ("401 Unauthorized", String::new(), Vec::new())
    } else if let Some(rest) = path.strip_prefix("/api/datasets/owner/") {
        let (name, revision) = rest.split_once("/revision/").unwrap();
        assert!(["main", "v1"].contains(&revision), "{revision}");
        let files = files(&fixture(&format!("published/{name}")));
        let siblings: Vec<Value> = files
            .iter()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let info = serde_json::json!({ "siblings": siblings, "sha": COMMIT });
        ("200 OK", String::new(), info.to_string().into_bytes())
    } else {
        let file = path
            .strip_prefix("/datasets/owner/")
            .unwrap()
            .replace(&format!("resolve/{COMMIT}/"), "");
        let bytes = fs::read(fixture(&format!("published/{file}"))).unwrap();
        let etag: String = file.chars().filter(char::is_ascii_alphanumeric).collect();
        let extra = format!(
            "x-repo-commit: {COMMIT}\r\nETag: \"{etag}\"\r\nContent-Range: bytes 0-0/{}\r\n",
            bytes.len()
        );
        match headers.iter().any(|line| line.starts_with("range: bytes=0-0")) {
            true => ("206 Partial Content", extra, bytes[..1].to_vec()),
            false => ("200 OK", extra, bytes),
        }
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n"
    )
    .unwrap();
    stream.write_all(&body).unwrap();
}

/// Paths inside a folder.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn sessions_and_items_of_two_hub_ids_are_evaluated_and_then_found_in_the_cache() {
    let (home, endpoint) = (TempDir::new().unwrap(), serve());
    let arguments = [
        "evaluate",
        "--dataset",
        "owner/gemma",
        "--item-dataset",
        "owner/items@v1",
        "--baselines",
        "popular,bm25",
        "--cutoffs",
        "5",
        "--json",
    ];
    let evaluate = |token: &str, offline: &str| {
        let mut command = langptune(&arguments);
        command.env("HF_HOME", home.path()).env("HF_ENDPOINT", &endpoint);
        command.env_remove("HF_HUB_CACHE").env("HF_TOKEN", token);
        command.env("HF_HUB_OFFLINE", offline).output().unwrap()
    };
    let refused = evaluate("", "");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("the hub refuses the dataset owner/gemma"), "{message}");
    let online = done(&evaluate("hf_secret", ""));
    let result: Value = serde_json::from_str(&online).unwrap();
    assert_eq!((&result["items"], &result["users"]), (&12.into(), &3.into()));
    assert!(home.path().join("hub/datasets--owner--items/refs/v1").is_file());
    let offline = done(&evaluate("", "1"));
    assert_eq!(offline, online);
}

#[test]
fn the_published_flags_train_on_published_folders() {
    let folder = TempDir::new().unwrap();
    let run = folder.path().join("run");
    let (lm, embedder) = (fixture("models/tiny-lm"), fixture("models/tiny-embedder"));
    let set = fixture("published/llama");
    let items = fixture("published/items");
    let train = |items: &str| {
        let arguments = "--response_length 6 --num_iterations 1 --num_emb_updates 1 --num_lm_updates 1 --topk 5 \
             --gradient_accumulation_steps 4 --emb_gradient_accumulation_steps 1 --emb_per_device_train_batch_size 4 \
             --lr 1e-3 --emb_lr 1e-3 --lora_rank 4 --overwrite";
        let mut command = langptune(&["train", "--task.query_dataset", &set, "--task.item_dataset", items]);
        command.args(["--lm", &lm, "--embedder", &embedder, "--output", run.to_str().unwrap()]);
        command.args(arguments.split_whitespace()).output().unwrap()
    };
    // These items count from 0, the sessions from 1.
    let other = train(&items);
    let message = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(
        !other.status.success() && message.contains("give the items that belong to these sessions"),
        "{message}"
    );
    let output = train(&set);
    done(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("prompts differ from their token ids in spaces alone; the ids are kept"),
        "{said}"
    );
    let manifest: Value = serde_json::from_slice(&fs::read(run.join("report/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["dataset"]["train_users"], 7);
}

#[test]
fn an_exported_dataset_is_two_sets_with_pages_and_gives_the_same_baselines() {
    let folder = TempDir::new().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (dataset, published) = (place("dataset"), place("published"));
    let (lm, embedder) = (fixture("models/tiny-lm"), fixture("models/tiny-embedder"));
    let (reviews, metadata) = (fixture("raw/hard/reviews.jsonl.gz"), fixture("raw/hard/meta.jsonl.gz"));
    let prepare = [
        "prepare",
        "--reviews",
        &reviews,
        "--metadata",
        &metadata,
        "--lm",
        &lm,
        "--embedder",
        &embedder,
        "--template",
        "chat",
        "--output",
        &dataset,
    ];
    done(&langptune(&prepare).output().unwrap());
    let export = ["export-dataset", "--dataset", &dataset, "--output", &published];
    let listed = done(&langptune(&export).output().unwrap());
    assert!(listed.contains("sessions/data/val-00000-of-00001.parquet"), "{listed}");
    let card = fs::read_to_string(folder.path().join("published/sessions/README.md")).unwrap();
    assert!(card.contains("padded on the left with 500 to 1024 tokens"), "{card}");
    assert!(
        card.contains("| train | `data/train-00000-of-00001.parquet` | 151 |"),
        "{card}"
    );
    let again = langptune(&export).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("--overwrite"));
    done(&langptune(&export).arg("--overwrite").output().unwrap());

    let evaluate = |set: &[&str]| {
        let mut command = langptune(&["evaluate", "--baselines", "bm25,reference", "--cutoffs", "5", "--json"]);
        command
            .args(["--lm", &lm, "--embedder", &embedder, "--response-length", "4"])
            .args(set);
        let result: Value = serde_json::from_str(&done(&command.output().unwrap())).unwrap();
        result["rows"].clone()
    };
    let (sessions, items) = (place("published/sessions"), place("published/items"));
    let ours = evaluate(&["--dataset", &dataset]);
    assert_eq!(evaluate(&["--dataset", &published]), ours);
    assert_eq!(evaluate(&["--dataset", &sessions, "--item-dataset", &items]), ours);
}
