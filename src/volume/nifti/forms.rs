//! The three ways in which a header places a grid, and the words for a grid that was made here.

use crate::volume::geometry::{cross, dot, norm};
use crate::volume::{Affine, Geometry, Shape, StoredForms};

/// Millimetres, in `xyzt_units`.
const UNITS_MM: u8 = 2;
/// `NIFTI_XFORM_ALIGNED_ANAT`: some anatomical space, for a grid that comes from no file.
const ALIGNED: i16 = 2;
/// Spacings outside this range are a fault of the header, not a scan [mm].
const SANE_SPACING: std::ops::RangeInclusive<f64> = 1e-6..=1e6;
/// Three unit columns with a smaller determinant do not span a volume.
const FLAT: f64 = 1e-6;
/// Columns count as perpendicular up to this cosine, so that a quaternion can say them.
const PERPENDICULAR: f64 = 1e-5;

/// The affine of a header: sform, else qform, else spacing alone.
///
/// # Errors
/// A line that says why it is none.
pub(super) fn affine(stored: &StoredForms, shape: Shape) -> Result<Affine, String> {
    let (affine, name) = if stored.sform_code > 0 {
        (Affine(stored.sform), "sform")
    } else if stored.qform_code > 0 {
        (qform(stored)?, "qform")
    } else {
        (spacing_alone(stored, shape)?, "pixdim")
    };
    check(&affine, name)?;
    Ok(affine)
}

fn check(affine: &Affine, name: &str) -> Result<(), String> {
    if !affine.0.iter().flatten().all(|x| x.is_finite()) {
        return Err(format!("has an affine ({name}) that is not finite"));
    }
    let spacing = affine.columns().map(norm);
    if !spacing.iter().all(|s| SANE_SPACING.contains(s)) {
        return Err(format!(
            "has an affine ({name}) with the spacing {spacing:?} mm, which no scan has"
        ));
    }
    let unit = affine.columns().map(|c| c.map(|x| x / norm(c)));
    if dot(unit[0], cross(unit[1], unit[2])).abs() < FLAT {
        return Err(format!(
            "has a singular affine ({name}): its axes lie in one plane"
        ));
    }
    Ok(())
}

/// The spacings of `pixdim`, which must not be 0; a sign means nothing there.
fn pixdim_spacing(stored: &StoredForms) -> Result<[f64; 3], String> {
    let [_, spacing @ ..] = stored.pixdim;
    if spacing.iter().any(|&s| s == 0.0 || !s.is_finite()) {
        return Err(format!(
            "has the spacing {spacing:?} mm in pixdim and no sform"
        ));
    }
    Ok(spacing.map(f64::abs))
}

/// # Source
/// NIfTI-1 standard, «Quaternion representation of rotation matrix», method 2.
fn qform(stored: &StoredForms) -> Result<Affine, String> {
    let spacing = pixdim_spacing(stored)?;
    let [b, c, d] = stored.quaternion;
    let a = real_part(stored.quaternion)?;
    let qfac = if stored.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let s = 2.0 / (a * a + b * b + c * c + d * d);
    let rows = [
        [
            1.0 - s * (c * c + d * d),
            s * (b * c - a * d),
            s * (b * d + a * c),
        ],
        [
            s * (b * c + a * d),
            1.0 - s * (b * b + d * d),
            s * (c * d - a * b),
        ],
        [
            s * (b * d - a * c),
            s * (c * d + a * b),
            1.0 - s * (b * b + c * c),
        ],
    ];
    let [i, j, k] = spacing;
    let offset = stored.quaternion_offset;
    let row = |r: usize| {
        [
            rows[r][0] * i,
            rows[r][1] * j,
            rows[r][2] * k * qfac,
            offset[r],
        ]
    };
    Ok(Affine([row(0), row(1), row(2)]))
}

/// The part of the quaternion that a header leaves out: it has length 1 in all.
fn real_part(quaternion: [f64; 3]) -> Result<f64, String> {
    let squared = 1.0 - dot(quaternion, quaternion);
    if squared.is_nan() || squared < -1e-6 {
        return Err(format!(
            "has the quaternion {quaternion:?} in its qform, which is longer than 1"
        ));
    }
    // What rounding leaves of a half turn is 0; how much it leaves is a matter of the type.
    let rounded = quaternion.iter().all(|&q| f64::from(q as f32) == q);
    let epsilon = if rounded {
        f32::EPSILON.into()
    } else {
        f64::EPSILON
    };
    Ok(if squared < 3.0 * epsilon {
        0.0
    } else {
        squared.sqrt()
    })
}

/// No orientation at all: nibabel's reading, x to the left and the middle at the origin.
///
/// # Source
/// NIfTI-1 standard, method 1; nibabel, `AnalyzeHeader.get_base_affine`.
fn spacing_alone(stored: &StoredForms, shape: Shape) -> Result<Affine, String> {
    let [i, j, k] = pixdim_spacing(stored)?;
    let columns = [[-i, 0.0, 0.0], [0.0, j, 0.0], [0.0, 0.0, k]];
    let middle = shape.map(|n| (n as f64 - 1.0) / 2.0);
    let centred = Affine::from_columns(columns, [0.0; 3]).apply(middle);
    Ok(Affine::from_columns(columns, centred.map(|x| -x)))
}

/// What a header says of the grid: the words it was read with as long as they still describe it,
/// else new ones with the same codes and units.
pub(super) fn of(geometry: &Geometry) -> StoredForms {
    match geometry.stored {
        Some(stored) if describes(&stored, geometry) => stored,
        Some(stored) => {
            let code = if stored.sform_code > 0 {
                stored.sform_code
            } else {
                stored.qform_code
            };
            made(
                &geometry.affine,
                if code > 0 { code } else { ALIGNED },
                stored.xyzt_units,
            )
        }
        None => made(&geometry.affine, ALIGNED, UNITS_MM),
    }
}

/// Up to a millionth of a voxel, the traces of turning a grid and turning it back.
fn describes(stored: &StoredForms, geometry: &Geometry) -> bool {
    let smallest = geometry.spacing().mm().into_iter().fold(f64::MAX, f64::min);
    affine(stored, geometry.shape)
        .ok()
        .and_then(|affine| geometry.corner_distance_mm(&affine))
        .is_some_and(|distance| distance <= 1e-6 * smallest)
}

/// Sform and, where the axes are perpendicular, qform of an affine, rounded as NIfTI-1 stores them.
fn made(affine: &Affine, code: i16, xyzt_units: u8) -> StoredForms {
    let columns = affine.columns();
    let spacing = columns.map(norm);
    let qfac = if affine.determinant() < 0.0 {
        -1.0
    } else {
        1.0
    };
    let mut unit = [0, 1, 2].map(|d| columns[d].map(|x| x / spacing[d]));
    let oblique = [(0, 1), (0, 2), (1, 2)].map(|(a, b)| dot(unit[a], unit[b]).abs());
    let perpendicular = oblique.iter().all(|&cosine| cosine < PERPENDICULAR);
    unit[2] = unit[2].map(|x| x * qfac);
    let round = |x: f64| f64::from(x as f32);
    StoredForms {
        pixdim: [qfac, spacing[0], spacing[1], spacing[2]].map(round),
        xyzt_units,
        qform_code: if perpendicular { code } else { 0 },
        sform_code: code,
        quaternion: quaternion(unit).map(round),
        quaternion_offset: affine.origin().map(round),
        sform: affine.0.map(|row| row.map(round)),
    }
}

/// Imaginary parts of the unit quaternion with a real part ≥ 0 of a rotation given by its columns.
///
/// # Source
/// S. W. Shepperd, «Quaternion from rotation matrix», doi:10.2514/3.55767b.
fn quaternion([x, y, z]: [[f64; 3]; 3]) -> [f64; 3] {
    let trace = x[0] + y[1] + z[2];
    // Squares of the four parts, times 4; the largest is divided by.
    let squares = [
        1.0 + trace,
        1.0 + 2.0 * x[0] - trace,
        1.0 + 2.0 * y[1] - trace,
        1.0 + 2.0 * z[2] - trace,
    ];
    let largest = (0..4).fold(
        0,
        |best, n| if squares[n] > squares[best] { n } else { best },
    );
    let products = match largest {
        0 => [squares[0], y[2] - z[1], z[0] - x[2], x[1] - y[0]],
        1 => [y[2] - z[1], squares[1], x[1] + y[0], z[0] + x[2]],
        2 => [z[0] - x[2], x[1] + y[0], squares[2], y[2] + z[1]],
        _ => [x[1] - y[0], z[0] + x[2], y[2] + z[1], squares[3]],
    };
    let length = products.iter().map(|p| p * p).sum::<f64>().sqrt();
    let sign = if products[0] < 0.0 { -1.0 } else { 1.0 };
    [1, 2, 3].map(|n| sign * products[n] / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(code_q: i16, code_s: i16) -> StoredForms {
        StoredForms {
            pixdim: [1.0, 2.0, 3.0, 4.0],
            xyzt_units: 2,
            qform_code: code_q,
            sform_code: code_s,
            quaternion: [0.0, 0.0, 0.5],
            quaternion_offset: [10.0, 20.0, 30.0],
            sform: [
                [5.0, 0.0, 0.0, 1.0],
                [0.0, 6.0, 0.0, 2.0],
                [0.0, 0.0, 7.0, 3.0],
            ],
        }
    }

    #[track_caller]
    fn assert_close(found: &Affine, expected: [[f64; 4]; 3], tolerance: f64) {
        for n in 0..12 {
            let (found, expected) = (found.0[n / 4][n % 4], expected[n / 4][n % 4]);
            assert!(
                (found - expected).abs() < tolerance,
                "entry {n}: {found} is not {expected}"
            );
        }
    }

    #[test]
    fn the_sform_wins_over_the_qform() {
        let found = affine(&forms(1, 1), [2, 2, 2]).unwrap();
        assert_close(&found, forms(1, 1).sform, 1e-12);
    }

    #[test]
    fn a_quaternion_of_60_degrees_about_z_turns_i_and_j() {
        // d = 0.5 = sin(30°): cos 60° = 0.5, sin 60° = 0.8660254
        let h = 0.75_f64.sqrt();
        let expected = [
            [1.0, -3.0 * h, 0.0, 10.0],
            [2.0 * h, 1.5, 0.0, 20.0],
            [0.0, 0.0, 4.0, 30.0],
        ];
        assert_close(&affine(&forms(1, 0), [2, 2, 2]).unwrap(), expected, 1e-12);
        let mut left_handed = forms(1, 0);
        left_handed.pixdim[0] = -1.0;
        let mut flipped = expected;
        flipped[2][2] = -4.0;
        assert_close(&affine(&left_handed, [2, 2, 2]).unwrap(), flipped, 1e-12);
        left_handed.pixdim[0] = 0.0;
        assert_close(&affine(&left_handed, [2, 2, 2]).unwrap(), expected, 1e-12);
    }

    #[test]
    fn without_forms_x_runs_to_the_left_and_the_middle_is_the_origin() {
        let expected = [
            [-2.0, 0.0, 0.0, 4.0],
            [0.0, 3.0, 0.0, -9.0],
            [0.0, 0.0, 4.0, 0.0],
        ];
        assert_close(&affine(&forms(0, 0), [5, 7, 1]).unwrap(), expected, 1e-12);
    }

    #[test]
    fn forms_that_place_nothing_are_refused() {
        let refused = |change: fn(&mut StoredForms), q: i16, s: i16| {
            let mut stored = forms(q, s);
            change(&mut stored);
            affine(&stored, [2, 2, 2]).unwrap_err()
        };
        assert!(refused(|f| f.sform[1][1] = f64::NAN, 0, 1).contains("not finite"));
        assert!(refused(|f| f.sform[1][1] = 0.0, 0, 1).contains("spacing"));
        assert!(refused(|f| f.sform[1] = [5.0, 0.0, 7.0, 0.0], 0, 1).contains("spacing"));
        assert!(refused(|f| f.sform[1] = f.sform[0], 0, 1).contains("spacing"));
        assert!(
            refused(
                |f| f.sform = [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0; 4]],
                0,
                1
            )
            .contains("singular")
        );
        assert!(refused(|f| f.quaternion[0] = 0.9, 1, 0).contains("quaternion"));
        assert!(refused(|f| f.quaternion[0] = f64::NAN, 1, 0).contains("quaternion"));
        assert!(refused(|f| f.pixdim[2] = 0.0, 1, 0).contains("spacing"));
        assert!(refused(|f| f.pixdim[2] = f64::INFINITY, 0, 0).contains("spacing"));
    }

    #[test]
    fn a_made_qform_says_the_same_as_the_sform() {
        // Turns about every axis, half turns among them, and a mirror.
        let turns = [
            [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]],
            [[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]],
            [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]],
            [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]],
            [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
            [[0.0, 0.0, -1.0], [-0.6, 0.8, 0.0], [0.8, 0.6, 0.0]],
            [[-0.96, 0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]],
        ];
        for [x, y, z] in turns {
            let columns = [x.map(|v| 2.0 * v), y.map(|v| 3.0 * v), z.map(|v| 0.5 * v)];
            let affine = Affine::from_columns(columns, [7.0, -8.0, 9.5]);
            let stored = of(&Geometry::new([3, 4, 5], affine));
            assert_eq!((stored.qform_code, stored.sform_code), (ALIGNED, ALIGNED));
            assert_close(&qform(&stored).unwrap(), affine.0, 2e-6);
        }
    }

    #[test]
    fn a_sheared_grid_has_no_qform() {
        let columns = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.3, 1.0]];
        let affine = Affine::from_columns(columns, [0.0; 3]);
        let stored = of(&Geometry::new([3, 4, 5], affine));
        assert_eq!((stored.qform_code, stored.sform_code), (0, ALIGNED));
    }

    #[test]
    fn the_stored_words_are_kept_until_the_grid_moves() {
        let stored = forms(3, 4);
        let geometry = Geometry {
            shape: [4, 5, 6],
            affine: affine(&stored, [4, 5, 6]).unwrap(),
            stored: Some(stored),
        };
        assert_eq!(of(&geometry), stored);
        let turned = geometry.reoriented(crate::volume::Orientation::LPS);
        assert_ne!(of(&turned), stored);
        assert_eq!(of(&turned).sform_code, 4);
        assert_eq!(of(&turned.reoriented(geometry.orientation())), stored);
        let padded = geometry.pad([1, 0, 0], [0; 3]);
        assert_eq!(of(&padded).sform[0], [5.0, 0.0, 0.0, -4.0]);
    }
}
