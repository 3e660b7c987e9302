//! Small grids and shapes with known answers, for tests.

use crate::volume::{Affine, Geometry, Image, Mask, Point, Samples, Shape, Volume};

/// A grid along the world's axes with its first centre at 0.
pub(crate) fn grid(shape: Shape, spacing: [f64; 3]) -> Geometry {
    turned(
        shape,
        spacing,
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    )
}

/// A grid turned about two axes (columns of a rotation by 30° about x after 20° about z).
pub(crate) fn oblique_grid(shape: Shape, spacing: [f64; 3]) -> Geometry {
    let (sz, cz) = 20_f64.to_radians().sin_cos();
    let (sx, cx) = 30_f64.to_radians().sin_cos();
    turned(
        shape,
        spacing,
        [
            [cz, -sz, 0.0],
            [cx * sz, cx * cz, -sx],
            [sx * sz, sx * cz, cx],
        ],
    )
}

/// A grid with the rows of `direction` as x, y, z of its unit columns.
pub(crate) fn turned(shape: Shape, spacing: [f64; 3], direction: [[f64; 3]; 3]) -> Geometry {
    let row = |r: usize| {
        let [a, b, c] = [0, 1, 2].map(|i| direction[r][i] * spacing[i]);
        [a, b, c, 0.0]
    };
    Geometry::new(shape, Affine([row(0), row(1), row(2)]))
}

/// The grid with its first centre moved to where `[i, j, k]` lay.
pub(crate) fn moved(geometry: Geometry, index: [f64; 3]) -> Geometry {
    let origin = geometry.affine.apply(index);
    placed(geometry, origin)
}

/// The grid with its first centre at `origin`.
pub(crate) fn placed(mut geometry: Geometry, origin: Point) -> Geometry {
    for (row, x) in geometry.affine.0.iter_mut().zip(origin) {
        row[3] = x;
    }
    geometry
}

/// A volume computed from each voxel's index.
pub(crate) fn volume<T>(geometry: Geometry, mut value: impl FnMut([usize; 3]) -> T) -> Volume<T> {
    let [width, height, depth] = geometry.shape;
    let mut voxels = Vec::with_capacity(geometry.voxel_count());
    for k in 0..depth {
        for j in 0..height {
            voxels.extend((0..width).map(|i| value([i, j, k])));
        }
    }
    Volume { voxels, geometry }
}

/// A mask computed from each voxel's index.
pub(crate) fn mask(geometry: Geometry, mut inside: impl FnMut([usize; 3]) -> bool) -> Mask {
    volume(geometry, |index| u8::from(inside(index)))
}

/// A box of voxels `[start, end)`.
pub(crate) fn box_mask(geometry: Geometry, start: [usize; 3], end: [usize; 3]) -> Mask {
    mask(geometry, |index| {
        (0..3).all(|a| (start[a]..end[a]).contains(&index[a]))
    })
}

/// A ball of `radius_mm` about the middle of the grid.
pub(crate) fn ball_mask(geometry: Geometry, radius_mm: f64) -> Mask {
    let centre = geometry.shape.map(|n| (n as f64 - 1.0) / 2.0);
    let spacing = geometry.spacing().mm();
    mask(geometry, |index| {
        let squares = [0, 1, 2].map(|a| ((index[a] as f64 - centre[a]) * spacing[a]).powi(2));
        squares.iter().sum::<f64>() <= radius_mm * radius_mm
    })
}

/// An image of real values computed from each voxel's world point.
pub(crate) fn image(geometry: Geometry, value: impl Fn(Point) -> f64) -> Image {
    let affine = geometry.affine;
    let values = volume(geometry, |index| {
        value(affine.apply(index.map(|n| n as f64))) as f32
    });
    Image {
        samples: Samples::F32(values.voxels),
        geometry: values.geometry,
    }
}
