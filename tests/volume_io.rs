//! Reading and writing of volumes, through files made here byte by byte.

use std::path::Path;

use voxmask::volume::{self, Geometry};

#[test]
fn a_mask_and_an_image_come_back_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let affine = voxmask::volume::Affine([
        [1.2, -2.4, 0.0, 10.0],
        [1.6, 1.8, 0.0, -20.0],
        [0.0, 0.0, -4.0, 30.0],
    ]);
    let geometry = Geometry::new([10, 12, 8], affine);
    let mask = volume::Mask {
        voxels: (0..960).map(|n| (n % 7 == 0).into()).collect(),
        geometry: geometry.clone(),
    };
    for name in ["mask.nii", "mask.nii.gz"] {
        let path = folder.path().join(name);
        volume::write_mask(&path, &mask, false).unwrap();
        let back = volume::read_mask(&path).unwrap();
        assert_eq!(back.voxels, mask.voxels);
        assert!(back.geometry.same_grid(&geometry));
        assert!(back.geometry.stored.is_some());
        assert!(is_nifti_1(&path, name.ends_with("gz")));
    }
}

fn is_nifti_1(path: &Path, zipped: bool) -> bool {
    let bytes = std::fs::read(path).unwrap();
    zipped == bytes.starts_with(&[0x1f, 0x8b]) && (zipped || bytes[..4] == [0x5c, 1, 0, 0])
}
