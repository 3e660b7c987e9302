//! A header that is nearly sound over any voxels, packed or not, whole or damaged: what is read has as many
//! voxels as its grid, and only what it may hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use voxmask::file::gzip;
use voxmask::volume;
use voxmask_fuzz::{MemoryFile, no_bug};

const TYPES: [i16; 12] = [2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280, 128, 77];

fuzz_target!(|bytes: &[u8]| {
    let Some((how, voxels)) = bytes.split_first_chunk::<16>() else {
        return;
    };
    let mut file = header(how);
    file.extend(voxels);
    if how[0] & 1 == 1 {
        let mut packed = Vec::new();
        gzip::write_member(&mut packed, &[&file], 1).expect("room in memory");
        if how[0] & 2 == 2 {
            let at = usize::from(u16::from_le_bytes([how[14], how[15]])) % packed.len();
            packed[at] ^= how[13] | 1;
        }
        file = packed;
    }
    let file = MemoryFile::new(&file);
    if let Some(image) = no_bug(volume::read_image(file.path(), Some(how[12].into()))) {
        assert_eq!(image.samples.len(), image.geometry.voxel_count());
        let [low, high] = image.samples.range();
        assert!(low.is_finite() && high.is_finite() && low <= high);
        let _ = image.oriented(volume::Orientation::RAS);
    }
    if let Some(mask) = no_bug(volume::read_mask(file.path())) {
        assert_eq!(mask.voxels.len(), mask.geometry.voxel_count());
        assert!(mask.voxels.iter().all(|&v| v <= 1));
    }
    if let Some(labels) = no_bug(volume::read_label_map(file.path())) {
        assert_eq!(labels.voxels.len(), labels.geometry.voxel_count());
    }
});

/// A NIfTI-1 header of a few voxels, as some bytes say.
fn header(how: &[u8; 16]) -> Vec<u8> {
    let mut header = vec![0; 352];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348_i32.to_le_bytes());
    let rank = i16::from(how[1] % 6);
    for (n, length) in [rank, how[2].into(), how[3].into(), how[4].into(), how[5].into()].iter().enumerate() {
        put(40 + 2 * n, &length.to_le_bytes());
    }
    put(70, &TYPES[usize::from(how[6]) % TYPES.len()].to_le_bytes());
    put(72, &i16::from(how[7]).to_le_bytes());
    for n in 0..8 {
        put(76 + 4 * n, &1_f32.to_le_bytes());
    }
    put(108, &(352.0 + f32::from(how[8])).to_le_bytes());
    put(112, &[0, 0, how[9], how[10]]);
    put(254, &1_i16.to_le_bytes());
    for row in 0..3 {
        put(280 + 20 * row, &f32::from(how[11].max(1)).to_le_bytes());
    }
    put(344, b"n+1\0");
    header
}
