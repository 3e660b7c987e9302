//! Any bytes as a NIfTI file whose grid is asked for; a grid that is given back is sound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxmask::volume;
use voxmask_fuzz::{MemoryFile, no_bug};

fuzz_target!(|bytes: &[u8]| {
    let file = MemoryFile::new(bytes);
    if let Some(geometry) = no_bug(volume::read_geometry(file.path())) {
        assert!(geometry.shape.iter().all(|&n| n > 0));
        assert!(geometry.spacing().mm().iter().all(|mm| mm.is_finite() && *mm > 0.0));
        assert!(geometry.affine.0.iter().flatten().all(|x| x.is_finite()));
        let _ = geometry.summary();
    }
});
