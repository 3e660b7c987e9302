//! All five steps in a row, on real scans with the tiny networks of the tests.

use std::path::{Path, PathBuf};

use crate::common::{phantom, read_json, run};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

#[test]
fn five_steps_run_in_a_row() {
    for scan in ["ct_abdomen.nii.gz", "mr_head_defaced.nii.gz"] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let step = |name: &str, pairs: &[(&str, String)]| {
            let report = path(&format!("{name}.json"));
            let mut arguments = vec!["--quiet".to_owned(), "--report".to_owned(), report.clone()];
            for (flag, value) in pairs {
                arguments.extend([(*flag).to_owned(), value.clone()]);
            }
            run(name, arguments).expect(0);
            read_json(Path::new(&report))["result"].clone()
        };
        let model = |name: &str| data("models").join(name).display().to_string();
        let image = path("image.nii.gz");

        step(
            "resample",
            &[
                ("--input", data(scan).display().to_string()),
                ("--spacing", "3,3,4".to_owned()),
                ("--output", image.clone()),
            ],
        );
        let found = step(
            "segment-foreground",
            &[
                ("--input", image.clone()),
                ("--model", model("foreground")),
                ("--output", path("foreground.nii.gz")),
            ],
        );
        assert_eq!(found["anatomy_found"], true, "{scan}");
        step(
            "segment-anonymization-area",
            &[
                ("--input", image.clone()),
                ("--model", model("anonymization-area")),
                ("--foreground", path("foreground.nii.gz")),
                ("--output", path("area.nii.gz")),
                ("--picture", path("picture.png")),
            ],
        );
        assert!(std::fs::metadata(path("picture.png")).unwrap().len() < 1_000_000);
        let input = phantom::read(Path::new(&image));
        for mask in ["foreground.nii.gz", "area.nii.gz"] {
            let mask = phantom::read(Path::new(&path(mask)));
            assert_eq!(
                (mask.shape, mask.affine, mask.datatype),
                (input.shape, input.affine, 2)
            );
        }
        let cut = step(
            "crop-patches",
            &[
                ("--input", image.clone()),
                ("--foreground", path("foreground.nii.gz")),
                ("--anonymization-area", path("area.nii.gz")),
                ("--patch-shape", "24,24,24".to_owned()),
                ("--output", path("patches")),
            ],
        );
        assert_eq!(cut["foreground_covered_share"], 1.0, "{scan}");
        let judged = step(
            "qa-metrics",
            &[
                ("--input", path("foreground.nii.gz")),
                ("--image", image.clone()),
            ],
        );
        assert_eq!(
            judged["mask"]["voxels"], found["foreground"]["voxels"],
            "{scan}"
        );
        assert!(
            judged["mask"]["intensities"]["contrast"].as_f64().unwrap() > 1.0,
            "{scan}"
        );
    }
}
