//! Any bytes as a configuration of each step; one that is taken comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxmask::cohort::Prepare;
use voxmask::step::Step;
use voxmask::steps::{
    Collect, CropPatches, QaMetrics, Resample, SegmentAnonymizationArea, SegmentForeground,
};
use voxmask_fuzz::no_bug;

fn check<S: Step>(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice::<S::Config>(bytes) else {
        return;
    };
    no_bug(S::validate(&config));
    let _ = S::files(&config);
    let text = serde_json::to_vec(&config).expect("a configuration is JSON");
    let again: S::Config = serde_json::from_slice(&text).expect("it is read again");
    let second = serde_json::to_vec(&again).expect("a configuration is JSON");
    assert_eq!(text, second);
}

fuzz_target!(|bytes: &[u8]| {
    check::<Resample>(bytes);
    check::<SegmentForeground>(bytes);
    check::<SegmentAnonymizationArea>(bytes);
    check::<CropPatches>(bytes);
    check::<QaMetrics>(bytes);
    check::<Collect>(bytes);
    check::<Prepare>(bytes);
});
