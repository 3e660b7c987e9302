//! The area of the surface between eight voxels.
//!
//! # Source
//! Lorensen and Cline, «Marching cubes», SIGGRAPH 1987, doi:10.1145/37401.37422: the surface cuts the
//! edges of the cube in their middles.

/// A corner of the cube: whether it comes before the middle along i, j and k.
type Corner = [bool; 3];

/// The bit of one voxel in a code.
pub(super) const fn bit(before: Corner) -> u8 {
    let [i, j, k] = before;
    1 << (4 * i as u8 + 2 * j as u8 + k as u8)
}

/// Whether the eight voxels are not all alike.
pub(super) fn is_surface(code: u8) -> bool {
    code != 0 && code != 0xFF
}

/// Area [mm²] for every code, which holds [`bit`] for each voxel of the mask.
///
/// The fewer of the two kinds of voxels are cut off from the others, each group that hangs together
/// by faces on its own; a mask and its inverse have the same surface.
pub(super) fn by_code(spacing: [f64; 3]) -> [f64; 256] {
    let [x, y, z] = spacing;
    let faces = [y * z, x * z, x * y];
    let mut areas = [0.0; 256];
    for (code, area) in (0..=u8::MAX).zip(&mut areas) {
        let few = if code.count_ones() <= 4 { code } else { !code };
        *area = groups(few)
            .iter()
            .map(|group| group_area(group, faces))
            .sum();
    }
    areas
}

/// The corners of a code, parted into groups that hang together by the edges of the cube.
fn groups(code: u8) -> Vec<Vec<Corner>> {
    let corners = (0..8_u8).map(|n| [n & 4 != 0, n & 2 != 0, n & 1 != 0]);
    let mut left: Vec<Corner> = corners.filter(|&corner| code & bit(corner) != 0).collect();
    let mut groups = Vec::new();
    while let Some(first) = left.pop() {
        let mut group = vec![first];
        let mut next = 0;
        while next < group.len() {
            let corner = group[next];
            group.extend(left.extract_if(.., |other| steps(corner, *other).len() == 1));
            next += 1;
        }
        groups.push(group);
    }
    groups
}

/// Axes along which two corners differ.
fn steps(a: Corner, b: Corner) -> Vec<usize> {
    (0..3).filter(|&axis| a[axis] != b[axis]).collect()
}

/// Area of the flat pieces that cut a group of one to four corners off. Each piece is given by its
/// shadows on the three faces of a unit cube.
fn group_area(group: &[Corner], faces: [f64; 3]) -> f64 {
    let flat = |shadows: [f64; 3]| {
        let squares = (0..3).map(|axis| (shadows[axis] * faces[axis]).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let even = |shadow: f64| flat([shadow; 3]);
    let only = |axes: &[usize], shadow: f64| {
        flat([0, 1, 2].map(|axis| if axes.contains(&axis) { shadow } else { 0.0 }))
    };
    // The corner with the most neighbours, and the axes that they lie along.
    let spokes = group.iter().map(|corner| spokes(group, *corner));
    let spokes = spokes.max_by_key(Vec::len).unwrap_or_default();
    match (group.len(), spokes.as_slice()) {
        // A triangle.
        (1, _) => even(1.0 / 8.0),
        // A rectangle along the axis that joins the two.
        (2, &[axis]) => only(&[(axis + 1) % 3, (axis + 2) % 3], 1.0 / 2.0),
        // A triangle over the middle of an L, and a trapezium across its ends.
        (3, &[a, b]) => only(&[3 - a - b], 1.0 / 2.0) + even(3.0 / 8.0),
        // A regular hexagon around a corner with three neighbours.
        (4, &[_, _, _]) => even(3.0 / 4.0),
        (4, &[a, b]) => match chain_middle(group) {
            // A rectangle across the cube, when all four share a face.
            None => only(&[3 - a - b], 1.0),
            // Along a chain through all three axes: a piece over its middle, one over each end.
            Some(axis) => {
                even(1.0 / 2.0)
                    + only(&[axis, (axis + 1) % 3], 1.0 / 4.0)
                    + only(&[axis, (axis + 2) % 3], 1.0 / 4.0)
            }
        },
        _ => 0.0,
    }
}

/// Axes along which a corner has neighbours in its group.
fn spokes(group: &[Corner], corner: Corner) -> Vec<usize> {
    let neighbours = group.iter().map(|other| steps(corner, *other));
    neighbours
        .filter(|steps| steps.len() == 1)
        .flatten()
        .collect()
}

/// The axis of a chain's middle step: that between the two corners that are no ends.
fn chain_middle(group: &[Corner]) -> Option<usize> {
    let middles = group
        .iter()
        .filter(|corner| spokes(group, **corner).len() == 2);
    match middles.collect::<Vec<_>>().as_slice() {
        [a, b] => steps(**a, **b).first().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_across_one_axis_has_the_area_of_a_face() {
        let areas = by_code([2.0, 3.0, 5.0]);
        assert_eq!(areas[0b1111_0000], 15.0);
        assert_eq!(areas[0b1100_1100], 10.0);
        assert_eq!(areas[0b1010_1010], 6.0);
    }

    #[test]
    fn a_single_corner_is_cut_off_by_a_triangle() {
        // Half of |(-1, 1.5, 0) x (-1, 0, 2.5)|, from the middles of edges of 2, 3 and 5 mm.
        let expected = 0.5 * (3.75_f64.powi(2) + 2.5_f64.powi(2) + 1.5_f64.powi(2)).sqrt();
        for corner in 0..8 {
            let areas = by_code([2.0, 3.0, 5.0]);
            assert!((areas[1 << corner] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_mask_and_its_inverse_have_the_same_surface() {
        let areas = by_code([0.7, 1.3, 2.9]);
        for code in 0..=u8::MAX {
            let (a, b) = (areas[usize::from(code)], areas[usize::from(!code)]);
            assert!((a - b).abs() < 1e-12, "{code:08b}: {a} {b}");
        }
    }

    #[test]
    fn areas_equal_those_of_surface_distance() {
        // Sums of create_table_neighbour_code_to_surface_area([0.7, 1.3, 2.9]) of surface-distance
        // 0.1, each value times its code to the power of 0, 1 and 2.
        let areas = by_code([0.7, 1.3, 2.9]);
        let moments = [
            (0, 591.662_296_892_075_7),
            (1, 75_436.942_853_739_66),
            (2, 12_650_232.978_816_621),
        ];
        for (power, expected) in moments {
            let terms = areas
                .iter()
                .enumerate()
                .map(|(code, a)| a * (code as f64).powi(power));
            let found: f64 = terms.sum();
            assert!(
                (found / expected - 1.0_f64).abs() < 1e-12,
                "{found}, expected {expected}"
            );
        }
    }
}
