//! Any bytes as a model's card, of either kind, and as its weights' file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxmask::network::folder::AnyCard;
use voxmask::network::onnx;
use voxmask_fuzz::no_bug;

fuzz_target!(|bytes: &[u8]| {
    no_bug(AnyCard::parse(bytes, "card.json"));
    let _ = onnx::check_self_contained(bytes);
});
