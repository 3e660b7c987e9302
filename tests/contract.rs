//! What all executables have in common, checked over one table.

mod common;

use std::path::Path;
use std::process::Command;

use common::phantom::{self, PLAIN, Phantom, oblique, put, put_dim};
use common::table::{Case, Content, Output, TABLE};
use common::{Run, executable, files, read_json, run};

fn with(arguments: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|&flag| flag.to_owned());
    arguments.iter().cloned().chain(more).collect()
}

#[test]
fn help_and_version_are_short_and_on_stdout() {
    for row in TABLE {
        let help = run(row.step, ["--help"]).expect(0);
        assert!(
            help.stdout
                .contains(&format!("Usage: voxmask-{}", row.step))
        );
        for (flag, _) in row.inputs {
            assert!(help.stdout.contains(flag), "{} {flag}", row.step);
        }
        let version = run(row.step, ["--version"]).expect(0);
        let wanted = format!("voxmask-{} {}\n", row.step, env!("CARGO_PKG_VERSION"));
        assert_eq!(version.stdout, wanted);
    }
}

#[test]
fn a_good_call_writes_its_output_and_is_silent_on_stdout() {
    for row in TABLE {
        let case = Case::new(row);
        let done = run(row.step, with(&case.arguments(), &["--quiet"])).expect(0);
        assert_eq!(
            (done.stdout.as_str(), done.stderr.as_str()),
            ("", ""),
            "{}",
            row.step
        );
        assert!(case.output().exists(), "{}", row.step);
    }
}

#[test]
fn unknown_keys_flags_and_wrong_values_are_refused() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        let config = case.path("config.json");
        for (text, hint) in [
            (r#"{"no_such_key": 1}"#, "no_such_key"),
            (r#"{"input": 5}"#, "config.json"),
            ("{", "config.json"),
            (r#"{"step": "other", "config": {}}"#, "report of other"),
        ] {
            std::fs::write(&config, text).unwrap();
            let flags = ["--config", config.to_str().unwrap()];
            let refused = run(row.step, with(&case.arguments(), &flags)).expect(2);
            assert!(
                refused.stderr.contains(hint),
                "{}: {}",
                row.step,
                refused.stderr
            );
        }
        std::fs::remove_file(&config).unwrap();
        for flags in [
            ["--no-such-flag", "1"],
            ["--threads", "0"],
            ["--device", "toaster"],
        ] {
            run(row.step, with(&case.arguments(), &flags)).expect(2);
        }
        assert_eq!(files(case.folder()), before, "{}", row.step);
    }
}

#[test]
fn a_missing_required_flag_is_named() {
    for row in TABLE {
        let case = Case::new(row);
        let mut required = vec!["--input"];
        required.extend(row.output.map(|_| "--output"));
        for flag in required {
            let mut arguments = case.arguments();
            let at = arguments.iter().position(|a| a == flag).unwrap();
            arguments.drain(at..at + 2);
            let refused = run(row.step, arguments).expect(2);
            let wanted = format!("{flag} is missing");
            assert!(
                refused.stderr.contains(&wanted),
                "{}: {}",
                row.step,
                refused.stderr
            );
        }
    }
}

#[test]
fn a_missing_input_or_a_folder_as_input_is_66() {
    for row in TABLE {
        for (flag, _) in row.inputs {
            let case = Case::new(row);
            let input = case.input(flag);
            std::fs::remove_file(&input).unwrap();
            let before = files(case.folder());
            let refused = run(row.step, case.arguments()).expect(66);
            assert!(
                refused.stderr.contains(input.to_str().unwrap()),
                "{}",
                refused.stderr
            );
            assert_eq!(files(case.folder()), before);
            std::fs::create_dir(&input).unwrap();
            let refused = run(row.step, case.arguments()).expect(66);
            assert!(refused.stderr.contains("is a folder"), "{}", refused.stderr);
        }
    }
}

/// A way to spoil a file: its name, and what it makes of a good one before gzip.
type Spoiled = (&'static str, fn(&Path));

fn spoil(path: &Path, header: impl Fn(&mut Vec<u8>)) {
    let phantom = Phantom::ball([24, 20, 12], oblique());
    let bytes: Vec<u8> = phantom
        .values
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let mut file = phantom::nifti(phantom.shape, phantom.affine, (16, 32), &bytes);
    header(&mut file);
    phantom::write(path, &file);
}

const SPOILED: &[Spoiled] = &[
    ("an empty file", |path| std::fs::write(path, "").unwrap()),
    ("no NIfTI", |path| {
        std::fs::write(path, "Dear Sir or Madam, ".repeat(100)).unwrap();
    }),
    ("a truncated gzip", |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() * 2 / 3]).unwrap();
    }),
    ("a gzip cut off in its header", |path| {
        std::fs::write(path, [0x1f, 0x8b, 8]).unwrap();
    }),
    ("a wrong checksum", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = bytes.len() - 8;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }),
    ("a size that the file does not have", |path| {
        spoil(path, |file| put_dim(file, 3, 500));
    }),
    ("30 dimensions", |path| {
        spoil(path, |file| put_dim(file, 0, 30))
    }),
    ("a negative dimension", |path| {
        spoil(path, |file| put_dim(file, 2, -5))
    }),
    ("no voxel along an axis", |path| {
        spoil(path, |file| put_dim(file, 1, 0))
    }),
    ("32767 voxels along each axis", |path| {
        spoil(path, |file| (1..4).for_each(|n| put_dim(file, n, i16::MAX)));
    }),
    ("a type that is none", |path| {
        spoil(path, |file| put(file, 70, &77_i16.to_le_bytes()));
    }),
    ("a singular affine", |path| {
        spoil(path, |file| put(file, 296, &[0; 16]));
    }),
    ("an affine that is not a number", |path| {
        spoil(path, |file| put(file, 284, &f32::NAN.to_le_bytes()));
    }),
    ("voxels beyond the file's end", |path| {
        spoil(path, |file| put(file, 108, &1e9_f32.to_le_bytes()));
    }),
    ("NaN voxels", |path| {
        spoil(path, |file| put(file, 1000, &f32::NAN.to_le_bytes()));
    }),
    ("infinite voxels", |path| {
        spoil(path, |file| put(file, 1000, &f32::INFINITY.to_le_bytes()));
    }),
];

/// Faults that do not concern the header.
const BEYOND_THE_HEADER: &[&str] = &[
    "a truncated gzip",
    "a wrong checksum",
    "a size that the file does not have",
    "32767 voxels along each axis",
    "voxels beyond the file's end",
    "NaN voxels",
    "infinite voxels",
];

#[test]
fn an_unusable_input_is_65_and_leaves_nothing_behind() {
    for row in TABLE {
        for (flag, _) in row.inputs {
            for (name, spoil) in SPOILED {
                // Of a grid to be like, only the header is read.
                if *flag == "--like" && BEYOND_THE_HEADER.contains(name) {
                    continue;
                }
                let case = Case::new(row);
                spoil(&case.input(flag));
                let before = files(case.folder());
                let refused = run(row.step, case.arguments());
                assert_eq!(
                    refused.code,
                    Some(65),
                    "{} {flag}: {name}: {refused:?}",
                    row.step
                );
                let refused = refused.expect(65);
                let named = refused.stderr.contains(case.input(flag).to_str().unwrap());
                assert!(named, "{} {flag}: {name}: {}", row.step, refused.stderr);
                assert_eq!(files(case.folder()), before, "{} {flag}: {name}", row.step);
            }
        }
    }
}

#[test]
fn a_mask_must_hold_0_and_1_on_the_images_grid() {
    for row in TABLE.iter().filter(|row| row.inputs.len() > 1) {
        for (flag, _) in row.inputs[1..].iter().filter(|(f, _)| *f != "--like") {
            let case = Case::new(row);
            Phantom::ball([24, 20, 12], PLAIN).write(&case.input(flag));
            let refused = run(row.step, case.arguments()).expect(65);
            assert!(
                refused.stderr.contains("grid"),
                "{} {flag}: {}",
                row.step,
                refused.stderr
            );
        }
    }
    let row = TABLE.iter().find(|row| row.step == "crop-patches").unwrap();
    let case = Case::new(row);
    let mut mask = Phantom::ball([24, 20, 12], oblique());
    mask.values[100] = 2.0;
    mask.write(&case.input("--foreground"));
    run(row.step, case.arguments()).expect(65);
}

#[test]
fn odd_but_sound_volumes_are_taken() {
    let mirrored = [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, -2.0, 0.0, 5.0],
        [0.0, 0.0, 0.7, 0.0],
    ];
    for row in TABLE {
        for (shape, affine) in [
            ([16, 12, 1], oblique()),
            ([1, 1, 1], oblique()),
            ([1, 30, 9], PLAIN),
            ([16, 12, 9], mirrored),
        ] {
            let case = Case::with_grid(row, shape, affine);
            let done = run(row.step, with(&case.arguments(), &["--quiet"]));
            assert_eq!(done.code, Some(0), "{} {shape:?}: {done:?}", row.step);
        }
        let case = Case::new(row);
        for (flag, _) in row.inputs {
            Phantom::new([24, 20, 12], oblique(), |_| 0.0).write(&case.input(flag));
        }
        let done = run(row.step, case.arguments());
        assert_eq!(done.code, Some(0), "{} all zero: {done:?}", row.step);
    }
}

#[test]
fn an_output_that_exists_stays_unless_overwrite_is_given() {
    for row in TABLE {
        let case = Case::new(row);
        run(row.step, case.arguments()).expect(0);
        let before = files(case.folder());
        let refused = run(row.step, case.arguments()).expect(73);
        assert!(refused.stderr.contains("--overwrite"), "{}", refused.stderr);
        assert_eq!(files(case.folder()), before, "{}", row.step);
        run(row.step, with(&case.arguments(), &["--overwrite"])).expect(0);
        let names =
            |f: &std::collections::BTreeMap<String, Vec<u8>>| f.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&files(case.folder())), names(&before), "{}", row.step);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_73() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        let report = case.path("no-such-folder/report.json");
        let flags = ["--report", report.to_str().unwrap()];
        let mut arguments = case.arguments();
        if row.output.is_none() {
            arguments.truncate(arguments.len() - 2);
        }
        run(row.step, with(&arguments, &flags)).expect(73);
        assert_eq!(files(case.folder()), before, "{}", row.step);

        let at = |path: &Path| {
            let mut arguments = case.arguments();
            let at = arguments
                .iter()
                .position(|a| a == case.output_flag())
                .unwrap();
            arguments[at + 1] = path.display().to_string();
            arguments
        };
        let name = case.output().file_name().unwrap().to_owned();
        run(row.step, at(&case.path("no-such-folder").join(&name))).expect(73);
        // A file where a folder should be.
        run(row.step, at(&case.input("--input").join(&name))).expect(73);
        assert_eq!(files(case.folder()), before, "{}", row.step);
        match row.output {
            Some(Output::Folder(_)) => std::fs::write(case.output(), "").unwrap(),
            _ => std::fs::create_dir(case.output()).unwrap(),
        }
        run(row.step, with(&case.arguments(), &["--overwrite"])).expect(73);
    }
}

#[test]
fn an_input_is_never_overwritten() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        for (flag, _) in row.inputs {
            let input = case.input(flag).display().to_string();
            let mut flags = vec!["--report", &input];
            if matches!(row.output, Some(Output::File(_))) {
                flags = vec!["--output", &input];
            }
            let mut arguments = case.arguments();
            let at = arguments.iter().position(|a| a == flags[0]);
            if let Some(at) = at {
                arguments.drain(at..at + 2);
            }
            flags.push("--overwrite");
            run(row.step, with(&arguments, &flags)).expect(2);
            assert_eq!(files(case.folder()), before, "{} {flag}", row.step);
        }
    }
}

#[test]
fn a_file_size_limit_is_73_and_leaves_nothing_behind() {
    for row in TABLE {
        let case = Case::new(row);
        let before = files(case.folder());
        // Ignored, the signal becomes an error of the write.
        let script = "trap '' XFSZ; ulimit -f 0; exec \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", executable(row.step)]);
        Run::of(command.args(case.arguments())).expect(73);
        assert_eq!(files(case.folder()), before, "{}", row.step);
    }
}

#[test]
fn a_full_disk_is_73_and_leaves_nothing_behind() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4k", "tmpfs"])
        .arg(disk.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: a_full_disk_is_73_and_leaves_nothing_behind: mount is not allowed here"
        );
        return;
    }
    let unmount = Unmount(disk.path());
    std::fs::write(disk.path().join("filler"), [1; 4096]).unwrap();
    for row in TABLE {
        let case = Case::new(row);
        let mut arguments = case.arguments();
        let at = arguments
            .iter()
            .position(|a| a == case.output_flag())
            .unwrap();
        let name = case.output().file_name().unwrap().to_owned();
        arguments[at + 1] = disk.path().join(name).display().to_string();
        let before = files(disk.path());
        run(row.step, arguments).expect(73);
        assert_eq!(files(disk.path()), before, "{}", row.step);
    }
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_report_on_stdout_is_one_json_and_names_no_folder() {
    for row in TABLE {
        let case = Case::new(row);
        let mut arguments = case.arguments();
        if row.output.is_none() {
            arguments.truncate(arguments.len() - 2);
        }
        let done = run(row.step, with(&arguments, &["--report", "-"])).expect(0);
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["schema"], format!("{}.report/1", row.step));
        let inputs = report["inputs"].as_array().unwrap().len();
        assert_eq!(inputs, row.inputs.len() + row.fixed.len());
        let folder = case.folder().file_name().unwrap().to_str().unwrap();
        assert!(!done.stdout.contains(folder), "{}", done.stdout);
        assert!(!done.stdout.contains("PATIENT"), "{}", done.stdout);
    }
}

#[test]
fn outputs_carry_no_text_of_the_inputs_header() {
    for row in TABLE {
        let case = Case::new(row);
        run(row.step, case.arguments()).expect(0);
        let inputs: Vec<_> = row
            .inputs
            .iter()
            .map(|(flag, _)| case.input(flag))
            .collect();
        for (name, mut bytes) in files(case.folder()) {
            if inputs.contains(&case.path(&name)) {
                continue;
            }
            if bytes.starts_with(&[0x1f, 0x8b]) {
                let mut plain = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(&bytes[..]);
                std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
                bytes = plain;
            }
            let found = bytes.windows(7).any(|window| window == b"PATIENT");
            assert!(!found, "{}: {name}", row.step);
        }
    }
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    for row in TABLE {
        let (key, in_file, flag, by_flag) = row.setting;
        let case = Case::new(row);
        let config = case.path("config.json");
        std::fs::write(&config, format!("{{\"{key}\": {in_file}}}")).unwrap();
        let report = case.path("report.json");
        let mut flags = vec!["--overwrite", "--config", config.to_str().unwrap()];
        if row.output.is_some() {
            flags.extend(["--report", report.to_str().unwrap()]);
        }
        run(row.step, with(&case.arguments(), &flags)).expect(0);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(
            read_json(&report)["config"][key],
            value(in_file),
            "{}",
            row.step
        );
        flags.push(flag);
        run(row.step, with(&case.arguments(), &flags)).expect(0);
        assert_eq!(
            read_json(&report)["config"][key],
            value(by_flag),
            "{}",
            row.step
        );
    }
}

#[test]
fn every_path_can_come_from_the_file() {
    for row in TABLE.iter().filter(|row| row.output.is_some()) {
        let case = Case::new(row);
        let mut config = serde_json::Map::new();
        for pair in case.paths().chunks(2) {
            let key = pair[0].trim_start_matches('-').replace('-', "_");
            config.insert(key, pair[1].clone().into());
        }
        let file = case.path("config.json");
        std::fs::write(&file, serde_json::Value::from(config).to_string()).unwrap();
        let mut arguments: Vec<&str> = row.flags.to_vec();
        arguments.extend(["--config", file.to_str().unwrap()]);
        run(row.step, arguments).expect(0);
        assert!(case.output().exists(), "{}", row.step);
    }
}

#[test]
fn a_report_repeats_its_run_to_the_byte_on_any_number_of_threads() {
    for row in TABLE {
        let case = Case::new(row);
        let report = case.path("first.json");
        let without_report = |case: &Case| {
            let mut arguments = case.arguments();
            if row.output.is_none() {
                let at = arguments.iter().position(|a| a == "--report").unwrap();
                arguments.drain(at..at + 2);
            }
            arguments
        };
        let flags = ["--threads", "1", "--report", report.to_str().unwrap()];
        run(row.step, with(&without_report(&case), &flags)).expect(0);
        let outputs = |case: &Case| {
            let mut found = files(case.folder());
            found.retain(|name, _| row.output.is_some_and(|o| name.starts_with(o.name())));
            found
        };
        let (first, first_report) = (outputs(&case), read_json(&report));
        assert_eq!(first.is_empty(), row.output.is_none(), "{}", row.step);
        for threads in ["1", "2", "8"] {
            let again = case.path("again.json");
            let mut arguments = case.paths();
            if row.output.is_none() {
                arguments.truncate(arguments.len() - 2);
            }
            let flags = [
                "--overwrite",
                "--config",
                report.to_str().unwrap(),
                "--threads",
                threads,
                "--report",
                again.to_str().unwrap(),
            ];
            run(row.step, with(&arguments, &flags)).expect(0);
            assert!(outputs(&case) == first, "{} on {threads} threads", row.step);
            let mut second_report = read_json(&again);
            second_report["run"] = first_report["run"].clone();
            assert_eq!(
                second_report, first_report,
                "{} on {threads} threads",
                row.step
            );
        }
    }
}

#[test]
fn paths_need_not_be_ascii() {
    for row in TABLE {
        let case = Case::new(row);
        let folder = case.path("Größe 大きさ");
        std::fs::create_dir(&folder).unwrap();
        let image = folder.join("бэ ü.nii.gz");
        std::fs::copy(case.input("--input"), &image).unwrap();
        let mut arguments = case.arguments();
        arguments[1] = image.display().to_string();
        assert_eq!(arguments[0], "--input");
        run(row.step, arguments).expect(0);
    }
}

#[test]
fn the_table_names_an_image_or_a_mask_first() {
    assert!(TABLE.iter().all(|row| row.inputs[0].0 == "--input"));
    assert!(TABLE.iter().any(|row| row.inputs[0].1 == Content::Mask));
}
