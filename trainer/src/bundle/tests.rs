#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eval_core::report::{
    Checkpoint, Chunks, Embeddings, F16File, Found, Interaction, Manifest, MapFiles, ResultChunk, TextIndex,
    TextIndexFile, User, UserChunk, UserResult, read_chunk, read_manifest,
};
use eval_core::scores::RankedTarget;
use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::*;
use crate::site::find_reports;

/// What must not be in a redacted bundle.
const SECRETS: [&str; 6] = [
    "A1B2C3",
    "loved it",
    "What would",
    "likes horror",
    "the reference",
    "horror-word",
];

/// A run with one user, and a viewer whose scripts try to end their element.
struct Place {
    outer: TempDir,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let site = outer.path().join("site");
        fs::create_dir_all(&site).unwrap();
        let files: [(&str, &[u8]); 6] = [
            (
                "index.html",
                b"<!doctype html><html><head><link rel=\"stylesheet\" href=\"viewer.css\" /><link rel=\"icon\" href=\"data:,\" />\
                  <script type=\"module\" src=\"start.js\"></script></head><body><p></p></body></html>\n",
            ),
            ("start.js", b"import init from \"./viewer.js\";\nawait init();\n"),
            (
                "viewer.js",
                b"const tricks = [\"</script>\", \"<!--\", 1 < 2];\nasync function __wbg_init(m) { return m; }\n\
                  export { __wbg_init as default };\n",
            ),
            ("worker.js", b"import init from \"./viewer.js\";\nonmessage = () => init();\n"),
            ("viewer.css", b"p::before { content: \"</style>\"; }\n"),
            ("viewer_bg.wasm", b"\0asm\x01\0\0\0"),
        ];
        files
            .iter()
            .for_each(|(name, bytes)| fs::write(site.join(name), bytes).unwrap());
        let place = Self { outer };
        place.write_report();
        place
    }

    fn run(&self) -> PathBuf {
        self.outer.path().join("demo")
    }

    fn write_report(&self) {
        let report = self.run().join("report");
        fs::create_dir_all(report.join("end")).unwrap();
        let write = |name: &str, content: Content<'_>| fs::write(report.join(name), content.bytes().unwrap()).unwrap();
        let record = |name: &str, record: Content<'static>| write(name, record);
        record("manifest.json", json(Path::new(""), &manifest()).unwrap());
        record("users-0.json", json(Path::new(""), &users()).unwrap());
        record("end/results-0.json", json(Path::new(""), &results()).unwrap());
        fs::write(report.join("items-0.json"), r#"{"first":0,"items":[]}"#).unwrap();
        fs::write(report.join("end/items.f16"), [0, 60]).unwrap();
        fs::write(report.join("end/profiles.f16"), [0, 60]).unwrap();
        for name in [
            "catalogue.json",
            "end/exposure.json",
            "end/map-items.xy",
            "end/map-profiles.xy",
        ] {
            fs::write(report.join(name), name).unwrap();
        }
        fs::write(report.join("words.bin"), "horror-word").unwrap();
        fs::write(report.join(".items-0.json.tmp"), "half").unwrap();
        fs::write(report.join("end/old.f16"), "of no use any more").unwrap();
    }

    fn site(&self) -> Site {
        Site::read(&self.outer.path().join("site")).unwrap()
    }

    fn folder(&self, name: &str, redact: bool) -> Result<BTreeMap<String, Vec<u8>>, BundleError> {
        let (site, reports) = (self.site(), find_reports(&[self.run()]).unwrap());
        let bundle = Bundle {
            site: &site,
            reports: &reports,
            redact,
        };
        let output = self.outer.path().join(name);
        bundle.write_folder(&output, false)?;
        let mut files = BTreeMap::new();
        collect(&output, "", &mut files);
        Ok(files)
    }

    fn single_file(&self, redact: bool) -> Result<String, BundleError> {
        let (site, reports) = (self.site(), find_reports(&[self.run()]).unwrap());
        let bundle = Bundle {
            site: &site,
            reports: &reports,
            redact,
        };
        let output = self.outer.path().join("demo.html");
        write_single_file(&bundle, &output)?;
        Ok(fs::read_to_string(output).unwrap())
    }
}

fn manifest() -> Manifest {
    let matrix = |file: &str| F16File {
        file: file.into(),
        rows: 1,
        dims: 1,
    };
    let words = TextIndex {
        files: vec![TextIndexFile {
            file: "words.bin".into(),
            first: "horror-word".into(),
        }],
    };
    let checkpoint = Checkpoint {
        name: "end".into(),
        profiles_per_user: 1,
        results: Some(Chunks::in_files("end/results", 1, 100)),
        profile_index: Some(words.clone()),
        embeddings: Some(Embeddings {
            items: matrix("end/items.f16"),
            profiles: matrix("end/profiles.f16"),
            references: None,
        }),
        exposure: Some("end/exposure.json".into()),
        map: Some(MapFiles {
            items: "end/map-items.xy".into(),
            profiles: "end/map-profiles.xy".into(),
            ..MapFiles::default()
        }),
        ..Checkpoint::default()
    };
    Manifest {
        items: Chunks::in_files("items", 1, 500),
        users: Chunks::in_files("users", 1, 100),
        history_index: Some(words),
        catalogue: Some("catalogue.json".into()),
        checkpoints: vec![checkpoint],
        ..Manifest::default()
    }
}

fn users() -> UserChunk {
    let user = User {
        id: "A1B2C3".into(),
        history: vec![Interaction {
            item: 0,
            rating: Some(5.0),
            review: Some("loved it".into()),
        }],
        targets: vec![0],
        prompt: Some("What would they like?".into()),
        reference_profile: Some("the reference".into()),
    };
    UserChunk {
        first: 0,
        users: vec![user],
    }
}

fn results() -> ResultChunk {
    let found = Found {
        profile: Some("likes horror</script>".into()),
        targets: vec![RankedTarget::from_counts(0, 1, 0, 1)],
        top_items: vec![0],
        top_scores: vec![0.5],
    };
    ResultChunk {
        first: 0,
        results: vec![UserResult {
            generated: vec![found],
            reference: None,
        }],
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

/// The files that a page holds, unpacked.
fn unpacked(page: &str) -> BTreeMap<String, Vec<u8>> {
    let elements = page.split("<script type=\"text/plain\" data-file=\"").skip(1);
    let file = |element: &str| {
        let (name, rest) = element.split_once('"').unwrap();
        let rest = rest.strip_prefix(" data-encoding=\"gzip+base64\">").unwrap();
        let packed = STANDARD.decode(rest.split_once("</script>").unwrap().0).unwrap();
        let mut bytes = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        (name.to_owned(), bytes)
    };
    elements.map(file).collect()
}

#[test]
fn a_folder_holds_the_viewer_and_all_that_the_manifest_names() {
    let place = Place::new();
    let files = place.folder("out", false).unwrap();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "index.html",
            "runs.json",
            "runs/demo/catalogue.json",
            "runs/demo/end/exposure.json",
            "runs/demo/end/items.f16",
            "runs/demo/end/map-items.xy",
            "runs/demo/end/map-profiles.xy",
            "runs/demo/end/profiles.f16",
            "runs/demo/end/results-0.json",
            "runs/demo/items-0.json",
            "runs/demo/manifest.json",
            "runs/demo/users-0.json",
            "runs/demo/words.bin",
            "start.js",
            "viewer.css",
            "viewer.js",
            "viewer_bg.wasm",
            "worker.js",
        ]
    );
    let runs: Runs = read_chunk(&files["runs.json"][..]).unwrap();
    assert_eq!((&runs.runs[0].path[..], runs.live), ("runs/demo/", false));
    for name in ["manifest.json", "users-0.json", "end/results-0.json", "words.bin"] {
        let original = fs::read(place.run().join("report").join(name)).unwrap();
        assert_eq!(files[&format!("runs/demo/{name}")], original, "{name}");
    }
}

#[test]
fn equal_reports_give_equal_bundles() {
    let (first, second) = (Place::new(), Place::new());
    for redact in [false, true] {
        let name = format!("out-{redact}");
        assert_eq!(
            first.folder(&name, redact).unwrap(),
            second.folder(&name, redact).unwrap()
        );
        assert_eq!(first.single_file(redact).unwrap(), second.single_file(redact).unwrap());
    }
}

#[test]
fn only_an_earlier_bundle_is_replaced() {
    let place = Place::new();
    place.folder("out", false).unwrap();
    let error = place.folder("out", false).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    let (site, reports) = (place.site(), find_reports(&[place.run()]).unwrap());
    let bundle = Bundle {
        site: &site,
        reports: &reports,
        redact: false,
    };
    bundle.write_folder(&place.outer.path().join("out"), true).unwrap();
    let error = bundle.write_folder(&place.run(), true).unwrap_err().to_string();
    assert!(error.contains("no runs.json"), "{error}");
    assert!(place.run().join("report/manifest.json").is_file());
}

#[test]
fn one_file_holds_the_same_files_and_asks_for_nothing() {
    let place = Place::new();
    let page = place.single_file(false).unwrap();
    let (mut inside, mut files) = (unpacked(&page), place.folder("out", false).unwrap());
    for name in ["index.html", "start.js", "viewer.css", "viewer.js"] {
        files.remove(name).unwrap();
        assert!(inside.remove(name).is_none(), "{name} is inline");
    }
    files.remove("worker.js").unwrap();
    let worker = String::from_utf8(inside.remove("worker.js").unwrap()).unwrap();
    assert!(
        worker.starts_with("const tricks = ") && !worker.contains("export"),
        "{worker}"
    );
    assert!(
        worker.ends_with("{\nconst init = __wbg_init;\nonmessage = () => init();\n}\n"),
        "{worker}"
    );
    assert_eq!(inside, files);
    assert!(!page.contains("src=") && !page.contains("import ") && !page.contains("viewer.css"));
    assert!(page.contains("<link rel=\"icon\" href=\"data:,\" />"));
    assert!(page.contains("[\"\\x3C/script>\", \"\\x3C!--\", 1 < 2]"), "{page}");
    assert!(page.contains("content: \"\\3C /style>\""), "{page}");
    assert!(
        page.contains("{\nconst init = startFromThisPage;\nawait init();\n}\n</script>"),
        "{page}"
    );
    assert_eq!(page.matches("<script").count(), page.matches("</script>").count());
    assert!(page.ends_with("</script>\n</body></html>\n"), "{page}");
}

#[test]
fn the_projects_own_page_can_be_one_file() {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/viewer");
    let place = Place::new();
    let site = place.outer.path().join("site");
    for entry in fs::read_dir(assets).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, site.join(path.file_name().unwrap())).unwrap();
    }
    let page = place.single_file(false).unwrap();
    assert!(page.contains("= startFromThisPage;") && !page.contains("src=\""));
    let worker = String::from_utf8(unpacked(&page).remove("worker.js").unwrap()).unwrap();
    assert!(
        worker.contains("= __wbg_init;") && !worker.contains("import "),
        "{worker}"
    );
}

#[test]
fn a_script_that_one_page_cannot_hold_is_named() {
    let place = Place::new();
    let start = place.outer.path().join("site/start.js");
    fs::write(&start, "import init from \"./viewer.js\";\nimport x from \"./x.js\";\n").unwrap();
    let error = place.single_file(false).unwrap_err().to_string();
    assert!(
        error.starts_with("start.js of the viewer: expected no import but"),
        "{error}"
    );
    assert!(error.contains("./x.js"), "{error}");
}

#[test]
fn a_report_above_the_limit_is_refused() {
    let place = Place::new();
    let vectors = fs::File::create(place.run().join("report/end/items.f16")).unwrap();
    vectors.set_len(MAX_SINGLE_FILE_BYTES).unwrap();
    let error = place.single_file(false).unwrap_err().to_string();
    assert!(
        error.starts_with("the reports are 51 MB: one file is for up to 50 MB"),
        "{error}"
    );
    // Without its vectors it is small.
    place.single_file(true).unwrap();
}

#[test]
fn a_redacted_bundle_holds_nothing_by_or_about_a_person() {
    let place = Place::new();
    let files = place.folder("out", true).unwrap();
    for (name, bytes) in files.iter().chain(&unpacked(&place.single_file(true).unwrap())) {
        let text = String::from_utf8_lossy(bytes);
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} in {name}");
        }
    }
    let left: Vec<&str> = files
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("runs/"))
        .collect();
    assert_eq!(
        left,
        [
            "runs/demo/catalogue.json",
            "runs/demo/end/exposure.json",
            "runs/demo/end/results-0.json",
            "runs/demo/items-0.json",
            "runs/demo/manifest.json",
            "runs/demo/users-0.json"
        ]
    );
    let manifest = read_manifest(&files["runs/demo/manifest.json"][..]).unwrap();
    assert!(manifest.redacted);
    let users: UserChunk = read_chunk(&files["runs/demo/users-0.json"][..]).unwrap();
    users.check(&manifest, 0).unwrap();
    assert_eq!(
        (&users.users[0].id[..], &users.users[0].targets[..]),
        ("user 0", &[0][..])
    );
    let kept: ResultChunk = read_chunk(&files["runs/demo/end/results-0.json"][..]).unwrap();
    kept.check(&manifest, &manifest.checkpoints[0], 0).unwrap();
    let (kept, whole) = (&kept.results[0].generated[0], &results().results[0].generated[0]);
    assert_eq!((&kept.targets, &kept.top_items), (&whole.targets, &whole.top_items));
}

#[cfg(unix)]
#[test]
fn a_file_that_leads_out_of_the_report_is_not_copied() {
    let place = Place::new();
    fs::write(place.outer.path().join("secret"), "secret").unwrap();
    let words = place.run().join("report/words.bin");
    fs::remove_file(&words).unwrap();
    std::os::unix::fs::symlink("../../secret", &words).unwrap();
    let error = place.folder("out", false).unwrap_err().to_string();
    assert!(
        error.contains("names \"words.bin\", which is no file inside its folder"),
        "{error}"
    );
    assert!(!place.outer.path().join("out").exists());
}
