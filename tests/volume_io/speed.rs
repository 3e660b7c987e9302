//! How long a scan takes to read and to write, of a file that the caller names.

use std::time::Instant;

use voxmask::{file, volume};

#[test]
#[ignore = "measures; run with VOXMASK_SPEED_INPUT=scan.nii.gz cargo test --release --test volume_io -- --ignored --nocapture"]
fn seconds_to_read_and_write() {
    let input = std::env::var_os("VOXMASK_SPEED_INPUT").unwrap();
    let folder = crate::folder();
    let output = folder.path().join("out.nii.gz");
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    let timed = |what: &str, (wall, cpu): (Instant, f64)| {
        let wall = wall.elapsed().as_secs_f64();
        println!(
            "{what}: {wall:.3} s, of processors {:.2} s",
            cpu_seconds() - cpu
        );
    };
    pool.install(|| {
        for _ in 0..3 {
            let start = now();
            let image = volume::read_image(input.as_ref(), None).unwrap();
            timed("read", start);
            let start = now();
            volume::write_image(&output, &image, true).unwrap();
            timed("write", start);
            let start = now();
            file::sha256(&output).unwrap();
            timed("digest", start);
            let start = now();
            let mut mask = volume::Mask {
                voxels: (0..image.samples.len())
                    .map(|n| u8::from(image.samples.value(n) > -300.0))
                    .collect(),
                geometry: image.geometry.clone(),
            };
            timed("(threshold)", start);
            let start = now();
            volume::write_mask(&output, &mask, true).unwrap();
            timed("write mask", start);
            let start = now();
            mask = volume::read_mask(&output).unwrap();
            timed("read mask", start);
            let start = now();
            let turned = image.oriented("RAS".parse().unwrap());
            timed("flip", start);
            let start = now();
            let turned = turned.oriented("ASR".parse().unwrap());
            timed("permute", start);
            println!("{} {}", mask.voxels.len(), turned.samples.len());
        }
    });
}

fn now() -> (Instant, f64) {
    (Instant::now(), cpu_seconds())
}

/// User and system time of all threads, to a hundredth: what a busy machine does not distort.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
