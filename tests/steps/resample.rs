//! `voxmask-resample`.

use std::path::Path;

use crate::common::phantom::{self, Affine, PLAIN, Phantom, Written, oblique};
use crate::common::{Run, read_json, run};

const SHAPE: [usize; 3] = [24, 20, 12];

fn resample(folder: &Path, flags: &[&str]) -> Run {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut arguments = vec!["--overwrite".to_owned(), "--quiet".to_owned()];
    arguments.extend(["--input".to_owned(), path("in.nii.gz")]);
    arguments.extend(["--output".to_owned(), path("out.nii.gz")]);
    arguments.extend(["--report".to_owned(), path("report.json")]);
    arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
    run("resample", arguments)
}

fn resampled(folder: &Path, flags: &[&str]) -> Written {
    resample(folder, flags).expect(0);
    phantom::read(&folder.join("out.nii.gz"))
}

fn spacing(affine: &Affine) -> [f64; 3] {
    [0, 1, 2].map(|c| affine.iter().map(|row| row[c] * row[c]).sum::<f64>().sqrt())
}

/// A plane through the world, which every interpolation must give back.
fn plane(affine: &Affine, index: [f64; 3]) -> f64 {
    let [x, y, z] = phantom::point(affine, index);
    0.5 * x - 0.25 * y + 2.0 * z + 10.0
}

#[test]
fn a_plane_stays_a_plane_on_oblique_grids() {
    let folder = tempfile::tempdir().unwrap();
    let affine = oblique();
    let plane_at = |index: [usize; 3]| plane(&affine, index.map(|n| n as f64)) as f32;
    Phantom::new(SHAPE, affine, plane_at).write_floats(&folder.path().join("in.nii.gz"));
    for (interpolation, coarsening) in [
        ("linear", "sample"),
        ("linear", "average"),
        ("cubic", "sample"),
    ] {
        for mm in ["1,1,1", "2,3,4", "0.8,2.5,3"] {
            let out = resampled(
                folder.path(),
                &[
                    "--spacing",
                    mm,
                    "--interpolation",
                    interpolation,
                    "--coarsening",
                    coarsening,
                ],
            );
            let mut checked = 0;
            for at in out.indices() {
                let world = phantom::point(&out.affine, at.map(|n| n as f64));
                let source = phantom::index(&affine, world);
                // The mirror at the edge bends a plane.
                let margin = 4.0;
                if (0..3)
                    .all(|d| source[d] >= margin && source[d] <= SHAPE[d] as f64 - 1.0 - margin)
                {
                    let wanted = plane(&out.affine, at.map(|n| n as f64));
                    let found = out.at(at);
                    let near = if interpolation == "cubic" { 0.05 } else { 1e-3 };
                    assert!(
                        (found - wanted).abs() < near,
                        "{interpolation} {mm}: {found} {wanted}"
                    );
                    checked += 1;
                }
            }
            assert!(checked > 50, "{interpolation} {mm}: {checked}");
        }
    }
}

#[test]
fn the_field_of_view_stays() {
    let folder = tempfile::tempdir().unwrap();
    Phantom::head(SHAPE, oblique()).write(&folder.path().join("in.nii.gz"));
    let out = resampled(folder.path(), &["--spacing", "3,0.5,1.5"]);
    assert_eq!(out.shape, [12, 40, 24]);
    assert_eq!(out.datatype, 4);
    for (d, (found, wanted)) in spacing(&out.affine).iter().zip([3.0, 0.5, 1.5]).enumerate() {
        assert!((found - wanted).abs() < 1e-5, "{d}: {found}");
    }
    let first = phantom::point(&out.affine, [-0.5; 3]);
    let wanted = phantom::point(&oblique(), [-0.5; 3]);
    (0..3).for_each(|d| assert!((first[d] - wanted[d]).abs() < 1e-4));
    let report = read_json(&folder.path().join("report.json"));
    assert_eq!(
        report["result"]["output"]["shape"],
        serde_json::json!([12, 40, 24])
    );
    assert_eq!(report["result"]["input"]["shape"], serde_json::json!(SHAPE));
}

#[test]
fn orientation_alone_moves_voxels_and_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.nii.gz");
    Phantom::new(SHAPE, oblique(), |[i, j, k]| (i + 30 * j + 600 * k) as f32).write(&input);
    let original = phantom::read(&input);
    let out = resampled(folder.path(), &["--orientation", "PSL"]);
    assert_eq!(out.shape, [20, 12, 24]);
    for at in out.indices() {
        let world = phantom::point(&out.affine, at.map(|n| n as f64));
        let source = phantom::index(&original.affine, world);
        let whole = source.map(|x| x.round() as usize);
        (0..3).for_each(|d| assert!((source[d] - whole[d] as f64).abs() < 1e-3));
        assert_eq!(out.at(at), original.at(whole));
    }
    let report = read_json(&folder.path().join("report.json"));
    assert_eq!(report["result"]["output"]["orientation"], "PSL");
}

#[test]
fn its_own_spacing_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.nii.gz");
    Phantom::head(SHAPE, PLAIN).write(&input);
    for interpolation in ["nearest", "linear", "cubic"] {
        let out = resampled(
            folder.path(),
            &["--spacing", "1,1,1", "--interpolation", interpolation],
        );
        assert_eq!(out.values, phantom::read(&input).values, "{interpolation}");
    }
}

#[test]
fn labels_stay_exact_when_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.nii.gz");
    let block = Phantom::block(SHAPE, oblique(), [3, 4, 2], [15, 12, 9]);
    // The first whole number that f32 does not hold, and negative ones.
    let label = |&v: &f32| if v > 0.0 { 16_777_217 } else { 0 };
    let mut labels: Vec<i32> = block.values.iter().map(label).collect();
    labels[0] = -70_000;
    block.write_wide(&input, &labels);
    let out = resampled(
        folder.path(),
        &[
            "--spacing",
            "0.9,0.9,0.9",
            "--interpolation",
            "nearest",
            "--fill-value",
            "0",
        ],
    );
    let known = [0.0, 16_777_217.0, -70_000.0];
    assert!(out.values.iter().all(|v| known.contains(v)));
    assert!(known.iter().all(|v| out.values.contains(v)));
    assert_eq!(out.datatype, 8);

    block.write(&input);
    let out = resampled(
        folder.path(),
        &["--spacing", "0.9,2.9,0.9", "--interpolation", "nearest"],
    );
    assert!(out.values.iter().all(|v| [0.0, 1.0].contains(v)));
}

#[test]
fn like_takes_the_grid_over_and_fills_what_lies_outside() {
    let folder = tempfile::tempdir().unwrap();
    Phantom::head(SHAPE, oblique()).write(&folder.path().join("in.nii.gz"));
    let grid = folder.path().join("grid.nii.gz");
    let mut elsewhere = PLAIN;
    elsewhere[0][3] = -200.0;
    Phantom::ball([7, 6, 5], elsewhere).write(&grid);
    let like = ["--like", grid.to_str().unwrap()];
    let out = resampled(
        folder.path(),
        &[&like[..], &["--fill-value", "-7"]].concat(),
    );
    assert_eq!((out.shape, out.affine), ([7, 6, 5], elsewhere));
    assert!(out.values.iter().all(|&v| v == -7.0));
    // Without a value: the lowest of the input.
    let out = resampled(folder.path(), &like);
    let report = read_json(&folder.path().join("report.json"));
    assert!(
        out.values
            .iter()
            .all(|&v| v == report["result"]["fill_value"])
    );
}

#[test]
fn averaging_lowers_noise_and_sampling_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let noise = |[i, j, k]: [usize; 3]| 1000.0 * phantom::noise(i + 40 * (j + 40 * k));
    Phantom::new([40, 40, 40], PLAIN, noise).write_floats(&folder.path().join("in.nii.gz"));
    let deviation = |coarsening: &str| {
        let out = resampled(
            folder.path(),
            &["--spacing", "4,4,4", "--coarsening", coarsening],
        );
        let mean = out.values.iter().sum::<f64>() / out.values.len() as f64;
        assert!((mean - 500.0).abs() < 30.0);
        let squares = out.values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        (squares / out.values.len() as f64).sqrt()
    };
    assert!(deviation("average") < 0.6 * deviation("sample"));
}

#[test]
fn grids_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.nii.gz");
    Phantom::head(SHAPE, oblique()).write(&input);
    let like = ["--like", input.to_str().unwrap()];
    for flags in [
        &[][..],
        &[&like[..], &["--spacing", "1,1,1"]].concat(),
        &[&like[..], &["--orientation", "RAS"]].concat(),
        &["--spacing", "0,1,1"],
        &["--spacing", "1,1"],
        &["--spacing", "1,1,-1"],
        &["--orientation", "RRS"],
        &["--orientation", "RA"],
        &["--spacing", "1,1,1", "--fill-value", "nan"],
        &["--spacing", "1,1,1", "--frame", "3"],
        &["--spacing", "1,1,1", "--interpolation", "magic"],
    ] {
        resample(folder.path(), flags).expect(2);
        assert!(!folder.path().join("out.nii.gz").exists());
    }
    let arguments = [
        "--spacing",
        "1,1,1",
        "--input",
        input.to_str().unwrap(),
        "--output",
    ];
    let text = folder.path().join("out.txt").display().to_string();
    run("resample", arguments.into_iter().chain([text.as_str()])).expect(2);
}
