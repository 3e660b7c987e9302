//! Laws that hold for every grid.

use proptest::prelude::*;
use voxmask::volume::{self, Affine, BoundingBox, Geometry, Orientation, Spacing, Volume};

use crate::raw::{Raw, gzipped, voxels, write};

prop_compose! {
    /// Any turn, spacings from 0.3 to 6 mm, either handedness, sheared by up to 20°.
    fn grid()(
        shape in prop::array::uniform3(1_usize..9),
        spacing in prop::array::uniform3(0.3_f64..6.0),
        q in prop::array::uniform4(-1.0_f64..1.0).prop_filter("no turn", |q| norm(q) > 0.1),
        origin in prop::array::uniform3(-300.0_f64..300.0),
        mirrored: bool,
        shear in 0.0_f64..0.36,
    ) -> Geometry {
        let mut columns = turn(q);
        if mirrored {
            columns[2] = columns[2].map(|x| -x);
        }
        columns[2] = [0, 1, 2].map(|r| columns[2][r] + shear * columns[1][r]);
        let columns = [0, 1, 2].map(|d| columns[d].map(|x| x * spacing[d]));
        Geometry::new(shape, Affine::from_columns(columns, origin))
    }
}

fn norm(q: &[f64; 4]) -> f64 {
    q.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn turn(q: [f64; 4]) -> [[f64; 3]; 3] {
    let [a, b, c, d] = q.map(|x| x / norm(&q));
    [
        [
            a * a + b * b - c * c - d * d,
            2.0 * (b * c + a * d),
            2.0 * (b * d - a * c),
        ],
        [
            2.0 * (b * c - a * d),
            a * a + c * c - b * b - d * d,
            2.0 * (c * d + a * b),
        ],
        [
            2.0 * (b * d + a * c),
            2.0 * (c * d - a * b),
            a * a + d * d - b * b - c * c,
        ],
    ]
}

fn numbered(geometry: Geometry) -> Volume<usize> {
    let voxels = (0..geometry.voxel_count()).collect();
    Volume { voxels, geometry }
}

fn far(one: [f64; 3], other: [f64; 3]) -> f64 {
    (0..3)
        .map(|d| (one[d] - other[d]).abs())
        .fold(0.0, f64::max)
}

proptest! {
    #[test]
    fn an_index_comes_back_from_its_point(
        grid in grid(),
        index in prop::array::uniform3(-500.0_f64..500.0),
    ) {
        let back = grid.affine.inverse().apply(grid.affine.apply(index));
        prop_assert!(far(back, index) < 1e-8);
    }

    #[test]
    fn ras_to_lps_and_back_is_nothing(grid in grid()) {
        let volume = numbered(grid.reoriented(Orientation::RAS));
        prop_assert_eq!(volume.geometry.orientation(), Orientation::RAS);
        let turned = volume.clone().oriented(Orientation::LPS);
        prop_assert_eq!(turned.geometry.orientation(), Orientation::LPS);
        let back = turned.oriented(Orientation::RAS);
        prop_assert_eq!(&back.voxels, &volume.voxels);
        prop_assert!(back.geometry.same_grid(&volume.geometry));
    }

    #[test]
    fn a_turned_volume_keeps_every_voxel_in_its_place(grid in grid()) {
        let turned = numbered(grid.clone()).oriented(Orientation::LPS);
        let [ni, nj, _] = grid.shape;
        for (n, &source) in turned.voxels.iter().enumerate() {
            let shape = turned.shape();
            let here = [n % shape[0], n / shape[0] % shape[1], n / (shape[0] * shape[1])];
            let there = [source % ni, source / ni % nj, source / (ni * nj)];
            let place = turned.geometry.affine.apply(here.map(|x| x as f64));
            prop_assert!(far(place, grid.affine.apply(there.map(|x| x as f64))) < 1e-9);
        }
    }

    #[test]
    fn crop_then_paste_is_nothing(grid in grid(), cut in prop::array::uniform6(0_usize..8)) {
        let volume = numbered(grid);
        let bounds = BoundingBox {
            start: [0, 1, 2].map(|d| cut[d] % volume.shape()[d]),
            end: [0, 1, 2].map(|d| {
                let start = cut[d] % volume.shape()[d];
                start + 1 + cut[d + 3] % (volume.shape()[d] - start)
            }),
        };
        prop_assert!(bounds.fits(volume.shape()));
        let piece = volume.crop(&bounds);
        let mut pasted = volume.clone();
        pasted.paste(&piece, bounds.start);
        prop_assert_eq!(&pasted, &volume);
        let after = [0, 1, 2].map(|d| volume.shape()[d] - bounds.end[d]);
        prop_assert!(piece.geometry.pad(bounds.start, after).same_grid(&volume.geometry));
    }

    #[test]
    fn half_the_spacing_keeps_both_outer_faces(grid in grid()) {
        let half = grid.spacing().mm().map(|s| s / 2.0);
        let fine = grid.with_spacing(Spacing::try_from(half).unwrap());
        prop_assert_eq!(fine.shape, grid.shape.map(|n| 2 * n));
        prop_assert!(far(fine.first_corner(), grid.first_corner()) < 1e-9);
        prop_assert!(far(fine.last_corner(), grid.last_corner()) < 1e-9);
    }

    #[test]
    fn no_damage_to_a_header_is_a_fault_of_ours(
        second: bool,
        zipped: bool,
        damage in prop::collection::vec((0_usize..560, any::<u8>()), 1..6),
    ) {
        let raw = Raw::new(&[4, 3, 2], 4);
        let raw = if second { raw.version_2() } else { raw };
        let mut file = raw.file(&[1; 48]);
        for (place, byte) in damage {
            let place = place % file.len();
            file[place] = byte;
        }
        let folder = crate::folder();
        let path = folder.path().join("a.nii");
        write(&path, &if zipped { gzipped(&file) } else { file });
        let errors = [
            volume::read_image(&path, None).err(),
            volume::read_image(&path, Some(1)).err(),
            volume::read_mask(&path).err(),
            volume::read_label_map(&path).err(),
        ];
        for error in errors.into_iter().flatten() {
            prop_assert!([2, 65, 66, 75].contains(&error.exit_code()), "{}", error);
        }
    }

    #[test]
    fn no_damage_to_gzip_is_a_fault_of_ours(
        place in 0_usize..400,
        byte: u8,
        length in 0_usize..400,
    ) {
        let numbers: Vec<i64> = (0..200).map(|n| n * n % 17).collect();
        let mut file = gzipped(&Raw::new(&[20, 5, 2], 4).file(&voxels(4, false, &numbers)));
        let last = file.len() - 1;
        file[place.min(last)] = byte;
        file.truncate(file.len() - length.min(last) / 4);
        let folder = crate::folder();
        let path = folder.path().join("a.nii.gz");
        write(&path, &file);
        if let Err(error) = volume::read_image(&path, None) {
            prop_assert_eq!(error.exit_code(), 65, "{}", error);
        }
    }
}
