//! The network's input channels against the training code's own (`tests/data/golden`).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use voxmask::network::card::Input;
use voxmask::network::channels::channels;
use voxmask::network::folder::AnyCard;
use voxmask::network::{Modality, Normalization};
use voxmask::volume::coarse_grid::CoarseGrid;
use voxmask::volume::{Canonical, Samples};

/// Reads a little-endian `float32` .npy; gives back shape and values in C order.
fn read_npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"));
    let shape = header.split_once('(').unwrap().1.split_once(')').unwrap().0;
    let shape = shape.split(',').filter_map(|n| n.trim().parse().ok());
    let values = bytes[10 + length..].chunks_exact(4);
    let values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    (shape.collect(), values.collect())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// What a network asks for that sees every channel that there is.
fn input() -> Input {
    let card = std::fs::read(folder().join("models/foreground/card.json")).unwrap();
    let mut card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    let channels = card["input"]["channels"].as_array_mut().unwrap();
    channels.extend(["abrupt".into(), "air-edge".into()]);
    card["input"]["abrupt"] = serde_json::json!(
        {"run_mm": 3.0, "reach_mm": 5.0, "below_mm": 3.0, "most": 1.5, "prior": 0.5}
    );
    card["input"]["air_edge"] = serde_json::json!(
        {"run_mm": 3.0, "reach_mm": 5.0, "below_mm": 3.0, "share": 0.2, "tissue_least": 0.08,
         "most": 1.5, "prior": 0.5}
    );
    let card = AnyCard::parse(card.to_string().as_bytes(), "test");
    card.and_then(|card| card.into_coarse_grid("test"))
        .unwrap()
        .input
}

fn largest_difference(name: &str, modality: Modality) -> f32 {
    let (folder, input) = (folder(), input());
    let scan = Canonical::read(&folder.join(format!("golden/{name}.nii.gz")), None).unwrap();
    let normalization = Normalization::of(&scan.image, Modality::Auto, &input);
    assert_eq!(normalization.modality, modality);
    let grid = CoarseGrid::over(&scan.image.geometry, input.cell_mm);
    let found = channels(&scan.image, grid.clone(), &normalization, &input);
    let (shape, golden) = read_npy(&folder.join(format!("golden/{name}.npy")));
    let [mi, mj, mk] = grid.shape;
    assert_eq!(shape, [7, mi, mj, mk]);
    let (abrupt, air_edge) = (found.abrupt.unwrap(), found.air_edge.unwrap());
    let fields = [
        (0, &found.intensity),
        (1, &found.flat),
        (2, &found.detail),
        (5, &abrupt),
        (6, &air_edge),
    ];
    let mut largest = 0.0_f32;
    for (c, field) in fields {
        for (i, j, k) in (0..mi * mj * mk).map(|n| (n % mi, n / mi % mj, n / mi / mj)) {
            let golden = golden[((c * mi + i) * mj + j) * mk + k];
            largest = largest.max((field[i + mi * (j + mj * k)] - golden).abs());
        }
    }
    largest
}

#[test]
fn channels_of_a_ct_equal_the_training_codes() {
    assert!(largest_difference("channels_ct", Modality::Ct) < 1e-5);
}

#[test]
fn channels_of_an_mr_equal_the_training_codes() {
    assert!(largest_difference("channels_mr", Modality::Mr) < 1e-5);
}

#[test]
fn a_float_copy_of_an_integer_scan_gives_the_same_channels() {
    let (folder, input) = (folder(), input());
    let scan = Canonical::read(&folder.join("golden/channels_mr.nii.gz"), None).unwrap();
    let mut float = scan.image.clone();
    let values = (0..float.samples.len()).map(|n| scan.image.samples.value(n));
    float.samples = Samples::F32(values.collect());
    let grid = CoarseGrid::over(&scan.image.geometry, input.cell_mm);
    let of = |image| {
        let normalization = Normalization::of(image, Modality::Auto, &input);
        channels(image, grid.clone(), &normalization, &input).intensity
    };
    assert_eq!(of(&scan.image), of(&float));
}
