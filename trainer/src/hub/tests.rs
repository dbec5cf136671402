#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with one model and one dataset, both `owner/tiny`, on a port of this machine.
struct FakeHub {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeHub {
    fn start(files: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files: HashMap<String, String> = files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &seen);
            }
        });
        Self { endpoint, requests }
    }

    fn hub(&self, cache: &Path) -> Hub {
        Hub {
            cache: cache.to_owned(),
            endpoint: Some(self.endpoint.clone()),
            token: None,
            offline: false,
        }
    }
}

fn answer(mut stream: TcpStream, files: &HashMap<String, String>, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(path.clone());
    let ranged = headers
        .iter()
        .any(|line| line.to_lowercase().starts_with("range: bytes=0-0"));
    let respond = |stream: &mut TcpStream, status: &str, extra: &str, body: &str| {
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n{body}"
        )
        .unwrap();
    };
    if path.starts_with("/api/models/owner/tiny") || path.starts_with("/api/datasets/owner/tiny") {
        let siblings: Vec<_> = files
            .keys()
            .map(|name| serde_json::json!({ "rfilename": name }))
            .collect();
        let info = serde_json::json!({ "siblings": siblings, "sha": COMMIT }).to_string();
        respond(&mut stream, "200 OK", "Content-Type: application/json\r\n", &info);
    } else if path.starts_with("/api/models/owner/gated") || path.starts_with("/api/datasets/owner/gated") {
        respond(&mut stream, "403 Forbidden", "", "");
    } else if let Some(text) = path
        .strip_prefix("/datasets")
        .unwrap_or(&path)
        .strip_prefix(&format!("/owner/tiny/resolve/{COMMIT}/"))
        .and_then(|name| files.get(&name.replace("%2F", "/")))
    {
        let etag: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
        let size = text.len();
        let extra = format!("x-repo-commit: {COMMIT}\r\nETag: \"{etag}\"\r\nContent-Range: bytes 0-0/{size}\r\n");
        match ranged {
            true => respond(&mut stream, "206 Partial Content", &extra, text.get(..1).unwrap()),
            false => respond(&mut stream, "200 OK", &extra, text),
        }
    } else {
        respond(&mut stream, "404 Not Found", "", "");
    }
}

const INDEX: &str =
    r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;

const FILES: [(&str, &str); 9] = [
    ("config.json", "{}"),
    ("tokenizer.json", "{}"),
    ("model.safetensors.index.json", INDEX),
    ("model-00001-of-00002.safetensors", "one"),
    ("model-00002-of-00002.safetensors", "two"),
    ("1_Pooling/config.json", "{\"pooling_mode_cls_token\": true}"),
    ("modules.json", "[{\"path\": \"1_Pooling\"}]"),
    ("../../escape.safetensors", "bad"),
    ("pytorch_model.bin", "bad"),
];

#[test]
fn a_model_is_downloaded_once_and_then_read_from_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let server = FakeHub::start(&FILES);
    let hub = server.hub(cache.path());
    let folder = hub.resolve("owner/tiny", "main").unwrap();
    assert_eq!(
        fs::read_to_string(folder.join("model-00002-of-00002.safetensors")).unwrap(),
        "two"
    );
    assert!(folder.join("1_Pooling/config.json").exists());
    assert!(!folder.join("pytorch_model.bin").exists());
    let asked = server.requests.lock().unwrap().len();
    assert_eq!(hub.resolve("owner/tiny", "main").unwrap(), folder);
    assert_eq!(hub.resolve("owner/tiny", COMMIT).unwrap(), folder);
    assert_eq!(server.requests.lock().unwrap().len(), asked);
    let offline = Hub { offline: true, ..hub };
    assert_eq!(offline.resolve("owner/tiny", "main").unwrap(), folder);
}

#[test]
fn a_snapshot_without_one_of_its_shards_is_not_whole() {
    let cache = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(&FILES).hub(cache.path());
    let folder = hub.resolve("owner/tiny", "main").unwrap();
    fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    assert_eq!(hub.cached("owner/tiny", "main"), None);
    let error = Hub { offline: true, ..hub }
        .resolve("owner/tiny", "main")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("HF_HUB_OFFLINE") && error.contains("give a folder"),
        "{error}"
    );
}

#[test]
fn files_outside_the_snapshot_are_never_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let server = FakeHub::start(&FILES);
    server.hub(cache.path()).resolve("owner/tiny", "main").unwrap();
    assert!(
        server
            .requests
            .lock()
            .unwrap()
            .iter()
            .all(|path| !path.contains("escape"))
    );
}

#[test]
fn without_a_connection_the_error_says_to_give_a_folder() {
    let cache = tempfile::tempdir().unwrap();
    let endpoint = Some("http://127.0.0.1:1".to_owned());
    let hub = Hub {
        cache: cache.path().to_owned(),
        endpoint,
        token: None,
        offline: false,
    };
    let error = hub.resolve("owner/tiny", "main").unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("give a folder"), "{error}");
}

#[test]
fn an_unknown_and_a_gated_model_are_told_apart() {
    let cache = tempfile::tempdir().unwrap();
    let hub = FakeHub::start(&FILES).hub(cache.path());
    assert!(matches!(
        hub.resolve("owner/other", "main"),
        Err(HubError::Unknown { .. })
    ));
    let error = hub.resolve("owner/gated", "main").unwrap_err();
    assert!(matches!(error, HubError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
}

#[test]
fn a_model_without_safetensors_is_refused() {
    let cache = tempfile::tempdir().unwrap();
    let files = [
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("pytorch_model.bin", "x"),
    ];
    let error = FakeHub::start(&files)
        .hub(cache.path())
        .resolve("owner/tiny", "main")
        .unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Incomplete {
                file: "model.safetensors",
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_folder_is_used_as_it_is_and_a_missing_path_is_no_hub_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(resolve_model(path, None).unwrap(), folder.path());
    for missing in [
        "./models/gemma",
        "/models/gemma",
        "models/google/gemma",
        "gemma/",
        "../gemma",
        "",
    ] {
        assert!(
            matches!(resolve_model(missing, None), Err(HubError::NoFolder { .. })),
            "{missing}"
        );
    }
}

#[test]
fn only_root_weights_of_the_model_count() {
    for name in ["model.safetensors", "model-00001-of-00012.safetensors"] {
        assert!(is_weights(name), "{name}");
    }
    for name in [
        "adapter_model.safetensors",
        "onnx/model.safetensors",
        "model-x-of-2.safetensors",
        "model-.safetensors",
    ] {
        assert!(!is_weights(name), "{name}");
    }
}

const SET: [(&str, &str); 5] = [
    ("README.md", "card"),
    ("data/train-00000-of-00001.parquet", "train"),
    ("data/val-00000-of-00001.parquet", "val"),
    ("../escape.parquet", "bad"),
    (".hidden/x.parquet", "bad"),
];

#[test]
fn a_datasets_parquet_files_alone_are_downloaded_and_stay_in_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let server = FakeHub::start(&SET);
    let hub = server.hub(cache.path());
    let folder = hub.resolve_dataset("owner/tiny", "v1").unwrap();
    assert!(folder.starts_with(cache.path().join("datasets--owner--tiny/snapshots")));
    assert_eq!(
        fs::read_to_string(folder.join("data/val-00000-of-00001.parquet")).unwrap(),
        "val"
    );
    assert!(!folder.join("README.md").exists());
    let asked = || server.requests.lock().unwrap().clone();
    assert!(
        !asked()
            .iter()
            .any(|path| path.contains("escape") || path.contains("hidden"))
    );
    let before = asked().len();
    assert_eq!(hub.resolve_dataset("owner/tiny", "v1").unwrap(), folder);
    assert_eq!(asked()[before..], ["/api/datasets/owner/tiny/revision/v1".to_owned()]);

    let offline = Hub {
        offline: true,
        ..hub.clone()
    };
    assert_eq!(offline.resolve_dataset("owner/tiny", "v1").unwrap(), folder);
    let unreachable = Hub {
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        ..hub
    };
    assert_eq!(unreachable.resolve_dataset("owner/tiny", "v1").unwrap(), folder);
}

#[test]
fn a_dataset_that_cannot_be_had_says_why() {
    let cache = tempfile::tempdir().unwrap();
    let server = FakeHub::start(&[("data.csv", "a,b")]);
    let hub = server.hub(cache.path());
    let error = |hub: &Hub, id: &str| hub.resolve_dataset(id, "main").unwrap_err();
    assert!(matches!(error(&hub, "owner/tiny"), HubError::NoParquet { .. }));
    let unknown = error(&hub, "owner/other").to_string();
    assert!(unknown.contains("no dataset owner/other at revision main"), "{unknown}");
    let gated = error(&hub, "owner/gated").to_string();
    assert!(gated.contains("https://huggingface.co/datasets/owner/gated"), "{gated}");
    let offline = Hub { offline: true, ..hub };
    let message = error(&offline, "owner/tiny").to_string();
    assert!(
        message.contains("the dataset owner/tiny is not (whole) in the cache"),
        "{message}"
    );
}

#[test]
fn a_dataset_id_has_an_owner_and_may_have_a_revision() {
    let ids = [
        ("owner/name", Some(("owner/name", "main"))),
        (
            "Cornell-AGI/amazon_movie.tv@v1.0",
            Some(("Cornell-AGI/amazon_movie.tv", "v1.0")),
        ),
        ("owner/name@refs/pr/1", Some(("owner/name", "refs/pr/1"))),
        ("name", None),
        ("./owner/name", None),
        ("owner/name@", None),
        ("owner/name@../x", None),
        ("/owner/name", None),
        ("a/b/c", None),
    ];
    for (text, id) in ids {
        assert_eq!(dataset_id(text), id, "{text}");
    }
}
