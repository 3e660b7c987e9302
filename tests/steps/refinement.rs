//! The second look at a mask's border, with networks whose answers are known (`tests/data/models`).

use std::path::{Path, PathBuf};

use voxmask::volume;

use crate::common::phantom::{PLAIN, Phantom, noise};
use crate::common::{read_json, run};

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/models")
        .join(name)
}

/// A copy of a model with another card.
fn with(name: &str, folder: &Path, change: impl Fn(&mut serde_json::Value)) -> PathBuf {
    let from = model(name);
    let mut card = read_json(&from.join("card.json"));
    change(&mut card);
    for file in ["model.onnx", "refinement.onnx"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    std::fs::write(folder.join("card.json"), card.to_string()).unwrap();
    folder.to_owned()
}

/// Where a slab that begins at voxel 25 of 60 along i was found to begin, on average [voxels].
fn found_from(scan: &Path, model: &Path, output: &Path) -> f64 {
    60.0 - found("segment-anonymization-area", scan, model, output) / (40.0 * 50.0)
}

/// Voxels that a step marks.
fn found(step: &str, scan: &Path, model: &Path, output: &Path) -> f64 {
    let arguments: [&Path; 7] = [
        "--input".as_ref(),
        scan,
        "--model".as_ref(),
        model,
        "--output".as_ref(),
        output,
        "--overwrite".as_ref(),
    ];
    run(step, arguments).expect(0);
    let mask = volume::read_mask(output).unwrap();
    mask.voxels.iter().filter(|v| **v != 0).count() as f64
}

#[test]
fn the_border_of_an_area_is_found_again_on_finer_cells() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("scan.nii");
    let phantom = Phantom::new([60, 40, 50], PLAIN, |[i, j, k]| {
        let n = i + 60 * (j + 40 * k);
        if i < 25 {
            300.0 + 100.0 * noise(n)
        } else {
            500.0
        }
    });
    phantom.write(&scan);
    let output = folder.path().join("area.nii");
    let refined = found_from(&scan, &model("refined-area"), &output);
    let coarse = with("refined-area", folder.path(), |card| {
        card.as_object_mut().unwrap().remove("refinement");
    });
    let coarse = found_from(&scan, &coarse, &output);
    // Cells count from nine tenths constant on: a good half of a cell inside the slab.
    assert!(coarse > 27.5 && coarse < 29.0, "{coarse}");
    assert!(refined > 25.5 && refined < 27.5, "{refined}");
    // Larger tiles see the same.
    let at_once = with("refined-area", folder.path(), |card| {
        card["refinement"]["tile_cells"] = 96.into()
    });
    let at_once = found_from(&scan, &at_once, &output);
    assert!((at_once - refined).abs() < 1e-9, "{at_once} {refined}");
}

#[test]
fn a_gap_in_a_body_is_seen_on_finer_cells_alone() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("scan.nii");
    let gap = 30..33_usize;
    Phantom::new([60, 40, 50], PLAIN, |[i, j, _]| {
        if i < 25 || j < 10 || gap.contains(&i) {
            0.0
        } else {
            500.0
        }
    })
    .write(&scan);
    let output = folder.path().join("foreground.nii");
    let in_gap = |model: &Path| {
        found("segment-foreground", &scan, model, &output);
        let mask = volume::read_mask(&output).unwrap();
        let [ni, nj, nk] = mask.geometry.shape;
        mask.voxels[gap.start + 1 + ni * (nj / 2 + nj * (nk / 2))]
    };
    assert_eq!(in_gap(&model("refined-foreground")), 0);
    let coarse = with("refined-foreground", folder.path(), |card| {
        card.as_object_mut().unwrap().remove("refinement");
    });
    assert_eq!(in_gap(&coarse), 1);
    let of_ct = with("refined-foreground", folder.path(), |card| {
        card["refinement"]["modalities"] = vec!["ct"].into();
    });
    assert_eq!(in_gap(&of_ct), 1);
}

#[test]
fn what_is_narrower_than_the_closing_belongs_to_the_body() {
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("scan.nii");
    let output = folder.path().join("foreground.nii");
    // A gap of 3 voxels of 1 mm, of which 2 at most are open in the mask, in tissue 500 above the air.
    let gap = 30..33_usize;
    let segment = |air: f32, closing_mm: f64| {
        Phantom::new([60, 40, 50], PLAIN, |[i, j, _]| {
            let empty = i < 25 || j < 10 || gap.contains(&i);
            if empty { air } else { air + 500.0 }
        })
        .write(&scan);
        let model = with("refined-foreground", folder.path(), |card| {
            card["refinement"]["modalities"] = vec!["mr", "ct"].into();
            card["boundary"]["closing_mm"] = closing_mm.into();
        });
        found("segment-foreground", &scan, &model, &output);
        volume::read_mask(&output).unwrap()
    };
    let in_gap = |closing_mm: f64| {
        let mask = segment(0.0, closing_mm);
        mask.voxels[mask.offset([gap.start + 1, 20, 25])]
    };
    assert_eq!(in_gap(0.5), 0);
    assert_eq!(in_gap(2.0), 1);
    // Of a CT it is not asked.
    let [open, closed] = [0.0, 2.0].map(|closing_mm| segment(-1000.0, closing_mm));
    assert!(open.voxels.iter().any(|v| *v != 0) && open.voxels.contains(&0));
    assert_eq!(open.voxels, closed.voxels);
}

#[test]
fn a_refinement_that_does_not_fit_its_network_is_refused() {
    type Change = (fn(&mut serde_json::Value), &'static str);
    let changes: [Change; 11] = [
        (|r| r["input"]["mr_clip"] = 2.0.into(), "other intensities"),
        (|r| r["input"]["channels"] = vec!["flat"].into(), "logit"),
        (|r| r["output"]["altered"] = "altered".into(), "judges"),
        (|r| r["modalities"] = vec!["auto"].into(), "modalities"),
        (
            |r| r["modalities"] = Vec::<&str>::new().into(),
            "modalities",
        ),
        (|r| r["input"]["margin_cells"] = 8.into(), "margin_cells"),
        (|r| r["tile_cells"] = 1_000_000.into(), "tile_cells"),
        (|r| r["tile_cells"] = 7.into(), "tile_cells"),
        (|r| r["input"]["multiple_of"] = 256.into(), "multiple_of"),
        (|r| r["logit_unit"] = 0.into(), "logit"),
        (|r| r["weights"]["sha256"] = "0".into(), "sha256"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let scan = folder.path().join("scan.nii");
    Phantom::new([20, 20, 20], PLAIN, |_| 1.0).write(&scan);
    for (change, said) in changes {
        let model = with("refined-area", folder.path(), |card| {
            change(&mut card["refinement"])
        });
        let output = folder.path().join("area.nii");
        let arguments: [&Path; 6] = [
            "--input".as_ref(),
            &scan,
            "--model".as_ref(),
            &model,
            "--output".as_ref(),
            &output,
        ];
        let run = run("segment-anonymization-area", arguments).expect(69);
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
        assert!(!output.exists());
    }
}
