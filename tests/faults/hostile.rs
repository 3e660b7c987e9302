//! Files that are made to do harm: refused before they cost anything.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::common::phantom::{self, PLAIN, Phantom};
use crate::common::table::{Case, Content, TABLE};
use crate::common::{Run, executable, files};

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models");

/// Zeros in one gzip member, and as many of them as it takes.
fn zeros(path: &Path, header: &[u8], bytes: u64) {
    const MEMBER: usize = 100 << 20;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; MEMBER]).unwrap();
    let member = encoder.finish().unwrap();
    let mut file = File::create(path).unwrap();
    file.write_all(&phantom::gzip(header)).unwrap();
    for _ in 0..bytes.div_ceil(MEMBER as u64) {
        file.write_all(&member).unwrap();
    }
}

/// Header of a volume of 16-bit integers, without voxels.
fn header(shape: [i16; 3]) -> Vec<u8> {
    let mut header = phantom::nifti([1; 3], PLAIN, (4, 16), &[]);
    (1..4).for_each(|n| phantom::put_dim(&mut header, n, shape[n - 1]));
    header
}

/// Ends a run that takes longer than it may.
fn limited(step: &str, arguments: &[String]) -> Run {
    let mut command = Command::new("timeout");
    Run::of(command.args(["10", executable(step)]).args(arguments))
}

#[test]
fn more_voxels_than_there_is_memory_are_refused_before_they_are_unpacked() {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let all = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = all.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    let bytes = (kib << 10) * 3 / 2;
    let slices = i16::try_from(bytes / (2 * 4096 * 4096)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bomb = folder.path().join("bomb.nii.gz");
    zeros(&bomb, &header([4096, 4096, slices]), bytes);
    for row in TABLE {
        let case = Case::plain(row);
        let mut arguments = case.arguments();
        arguments[1] = bomb.display().to_string();
        let before = files(case.folder());
        let refused = limited(row.step, &arguments);
        // Masks lie on another grid than the bomb, which shows before it is read.
        let code = refused.code.unwrap();
        assert!([65, 75].contains(&code), "{}: {refused:?}", row.step);
        let refused = refused.expect(code);
        let why = if code == 75 { "MB are free" } else { "grid" };
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(files(case.folder()) == before);
    }
}

#[test]
fn a_bomb_behind_the_voxels_is_not_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let bomb = folder.path().join("bomb.nii.gz");
    zeros(&bomb, &header([16; 3]), 10 << 30);
    assert!(std::fs::metadata(&bomb).unwrap().len() < 12 << 20);
    for row in TABLE.iter().filter(|row| row.inputs[0].1 == Content::Image) {
        let case = Case::plain(row);
        let mut arguments = case.arguments();
        arguments[1] = bomb.display().to_string();
        let refused = limited(row.step, &arguments).expect(65);
        let why = "far more than its header says";
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
}

#[test]
fn grids_beyond_any_memory_are_refused() {
    for (step, flag) in [
        ("resample", "--spacing=0.0001,0.0001,0.0001"),
        ("resample", "--spacing=0.0000001,0.0000001,0.0000001"),
        ("crop-patches", "--spacing=0.0001,0.0001,0.0001"),
        ("crop-patches", "--patch-shape=4096,4096,4096"),
    ] {
        let row = TABLE.iter().find(|row| row.step == step).unwrap();
        let case = Case::plain(row);
        let before = files(case.folder());
        let mut arguments = case.arguments();
        arguments.retain(|a| !a.starts_with("--patch-shape"));
        if let Some(at) = arguments.iter().position(|a| a == "--like") {
            arguments.drain(at..at + 2);
        }
        arguments.push(flag.to_owned());
        let refused = limited(step, &arguments).expect(75);
        assert!(refused.stderr.contains("MB are free"), "{}", refused.stderr);
        assert!(files(case.folder()) == before);
    }
}

/// Voxels of 60 cm.
const WIDE: [[f64; 4]; 3] = [
    [600.0, 0.0, 0.0, 0.0],
    [0.0, 600.0, 0.0, 0.0],
    [0.0, 0.0, 600.0, 0.0],
];

/// The SHA-256 of some bytes, as cards write it.
fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// A folder with one of the tests' foreground networks, changed.
struct Model {
    folder: tempfile::TempDir,
    case: Case,
}

impl Model {
    fn new() -> Self {
        Self::of("foreground", &["card.json", "model.onnx"])
    }

    fn refined() -> Self {
        let files = ["card.json", "model.onnx", "refinement.onnx"];
        Self::of("refined-foreground", &files)
    }

    fn of(name: &str, files: &[&str]) -> Self {
        let row = TABLE
            .iter()
            .find(|row| row.step == "segment-foreground")
            .unwrap();
        let model = Self {
            folder: tempfile::tempdir().unwrap(),
            case: Case::plain(row),
        };
        for file in files {
            let from = Path::new(MODELS).join(name).join(file);
            std::fs::copy(from, model.path(file)).unwrap();
        }
        model
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn change_card(&self, change: impl Fn(&mut serde_json::Value)) {
        let mut card = crate::common::read_json(&self.path("card.json"));
        change(&mut card);
        std::fs::write(self.path("card.json"), card.to_string()).unwrap();
    }

    /// Other weights, with a card that knows them.
    fn put_weights(&self, weights: &[u8]) {
        std::fs::write(self.path("model.onnx"), weights).unwrap();
        let digest = hex(weights);
        self.change_card(|card| card["weights"]["sha256"] = digest.clone().into());
    }

    #[track_caller]
    fn refused(&self, code: i32, why: &str) {
        let mut arguments = self.case.arguments();
        let at = arguments.iter().position(|a| a == "--model").unwrap();
        arguments[at + 1] = self.folder.path().display().to_string();
        let refused = limited("segment-foreground", &arguments).expect(code);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(!self.case.output().exists());
    }
}

/// A field of Protocol Buffers that holds bytes, shorter than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    field.extend(bytes);
    field
}

#[test]
fn weights_that_lie_in_other_files_are_refused() {
    for path in ["../../../../etc/passwd", "/etc/passwd", "beside.bin"] {
        let model = Model::new();
        let weights = std::fs::read(model.path("model.onnx")).unwrap();
        // Protocol Buffers join what is given twice: one more initializer of the graph.
        let entry = [field(1, b"location"), field(2, path.as_bytes())].concat();
        let tensor = [field(8, b"more"), field(13, &entry), vec![14 << 3, 1]].concat();
        model.put_weights(&[weights, field(7, &field(5, &tensor))].concat());
        model.refused(69, "another file");
    }
}

#[test]
fn weights_beyond_their_folder_are_refused() {
    let model = Model::new();
    model.change_card(|card| card["weights"]["file"] = "../model.onnx".into());
    model.refused(69, "without folders");
}

#[test]
fn weights_that_are_no_network_are_refused() {
    for weights in [&b""[..], b"Dear Sir or Madam", &[0xff; 4096]] {
        let model = Model::new();
        model.put_weights(weights);
        model.refused(69, "");
    }
}

#[test]
fn endless_cards_and_weights_are_not_read() {
    for name in ["card.json", "model.onnx"] {
        let model = Model::new();
        std::fs::remove_file(model.path(name)).unwrap();
        let huge = File::create(model.path(name)).unwrap();
        huge.set_len(1 << 40).unwrap();
        let start = Instant::now();
        model.refused(69, "larger than");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn cards_that_ask_for_absurd_memory_are_refused() {
    let model = Model::new();
    model.change_card(|card| card["input"]["channels"] = vec!["intensity"; 1000].into());
    model.refused(69, "channels");
    let model = Model::new();
    model.change_card(|card| card["input"]["margin_cells"] = 1_000_000_000.into());
    model.refused(69, "margin_cells");
    let model = Model::new();
    model.change_card(|card| card["boundary"]["smoothing_mm"] = 1e7.into());
    model.refused(69, "smoothing_mm");
    // Cells of half a millimetre in a scan of ten metres.
    let model = Model::new();
    model.change_card(|card| card["input"]["cell_mm"] = 0.5.into());
    Phantom::head([16; 3], WIDE).write(&model.case.input("--input"));
    model.refused(75, "the network's input");
}

#[test]
fn refinements_that_are_hostile_are_refused() {
    let model = Model::refined();
    model.change_card(|card| card["refinement"]["weights"]["file"] = "../model.onnx".into());
    model.refused(69, "without folders");
    let model = Model::refined();
    let weights = b"Dear Sir or Madam";
    std::fs::write(model.path("refinement.onnx"), weights).unwrap();
    let digest = hex(weights);
    model.change_card(|card| card["refinement"]["weights"]["sha256"] = digest.clone().into());
    model.refused(69, "");
    // As above; the first network's cells are far larger.
    let model = Model::refined();
    model.change_card(|card| {
        card["input"]["cell_mm"] = 64.0.into();
        card["refinement"]["input"]["cell_mm"] = 0.5.into();
    });
    Phantom::head([16; 3], WIDE).write(&model.case.input("--input"));
    model.refused(75, "the refined logits");
}

#[test]
fn an_endless_configuration_is_not_read() {
    for row in TABLE {
        let case = Case::plain(row);
        let mut arguments = case.arguments();
        arguments.extend(["--config".to_owned(), "/dev/zero".to_owned()]);
        limited(row.step, &arguments).expect(66);
    }
}

#[test]
fn an_output_that_is_made_a_link_to_the_input_never_changes_the_input() {
    for step in ["resample", "segment-foreground"] {
        let row = TABLE.iter().find(|row| row.step == step).unwrap();
        let case = Case::plain(row);
        let (input, output) = (case.input("--input"), case.output());
        let before = std::fs::read(&input).unwrap();
        let mut arguments = case.arguments();
        arguments.push("--overwrite".to_owned());
        for _ in 0..5 {
            let mut command = Command::new(executable(step));
            let mut child = command
                .args(&arguments)
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let status = loop {
                let _ = std::fs::remove_file(&output);
                let _ = std::os::unix::fs::symlink(&input, &output);
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
            };
            // Seen in time, it is refused.
            assert!(
                [Some(0), Some(2), Some(73)].contains(&status.code()),
                "{status}"
            );
            assert!(std::fs::read(&input).unwrap() == before, "{step}");
        }
    }
}

#[test]
fn what_an_output_links_to_is_left_alone() {
    let row = TABLE.iter().find(|row| row.step == "resample").unwrap();
    let case = Case::plain(row);
    let secret = case.path("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, case.output()).unwrap();
    limited(row.step, &case.arguments()).expect(73);
    assert!(case.output().is_symlink());
    let mut arguments = case.arguments();
    arguments.push("--overwrite".to_owned());
    limited(row.step, &arguments).expect(0);
    assert!(!case.output().is_symlink());
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
}
