use proptest::prelude::*;

use super::*;
use crate::ops::phantom::{grid, image, mask, moved, oblique_grid, placed, turned, volume};

fn sampled(interpolation: Interpolation) -> Resampling {
    Resampling {
        interpolation,
        coarsening: Coarsening::Sample,
        fill_value: -1.0,
    }
}

fn values(image: &Image) -> Vec<f32> {
    (0..image.samples.len())
        .map(|n| image.samples.value(n))
        .collect()
}

/// A value that grows evenly along every world axis.
fn ramp([x, y, z]: [f64; 3]) -> f64 {
    3.0 + 0.5 * x - 0.25 * y + 0.125 * z
}

fn assert_stays_a_ramp(from: Geometry, to: Geometry, resampling: Resampling) {
    let result = resample(&image(from, ramp), &to, resampling).unwrap();
    let expected = image(to, ramp);
    for (n, (a, b)) in values(&result).iter().zip(values(&expected)).enumerate() {
        assert!((a - b).abs() < 2e-5, "voxel {n}: {a}, expected {b}");
    }
}

#[test]
fn halfway_between_voxels_lies_their_mean() {
    let line = image(grid([3, 1, 1], [2.0, 1.0, 1.0]), |p| p[0] * p[0]);
    let finer = grid([5, 1, 1], [1.0, 1.0, 1.0]);
    let result = resample(&line, &finer, Resampling::LINEAR).unwrap();
    assert_eq!(values(&result), [0.0, 2.0, 4.0, 10.0, 16.0]);
}

#[test]
fn the_edge_goes_on_for_half_a_voxel_and_then_comes_the_fill_value() {
    let line = image(grid([2, 1, 1], [1.0, 1.0, 1.0]), |p| 5.0 + p[0]);
    let wider = moved(grid([7, 1, 1], [0.5, 1.0, 1.0]), [-2.0, 0.0, 0.0]);
    let linear = resample(&line, &wider, sampled(Interpolation::Linear)).unwrap();
    assert_eq!(values(&linear), [-1.0, 5.0, 5.0, 5.5, 6.0, -1.0, -1.0]);
    let nearest = resample(&line, &wider, sampled(Interpolation::Nearest)).unwrap();
    assert_eq!(values(&nearest), [-1.0, 5.0, 5.0, 6.0, 6.0, -1.0, -1.0]);
}

#[test]
fn a_ramp_stays_a_ramp_on_oblique_and_anisotropic_grids() {
    let from = oblique_grid([16, 14, 12], [1.0, 1.5, 2.0]);
    let parallel = moved(oblique_grid([20, 18, 9], [0.5, 1.0, 1.7]), [4.3, 1.2, 1.6]);
    let other = placed(
        grid([6, 5, 4], [0.8, 1.1, 0.9]),
        from.affine.apply([6.5, 5.5, 4.5]),
    );
    for to in [parallel, other] {
        assert_stays_a_ramp(from.clone(), to, sampled(Interpolation::Linear));
    }
}

#[test]
fn averaging_keeps_a_ramp_and_takes_away_noise() {
    let from = oblique_grid([60, 24, 24], [1.0, 1.0, 3.0]);
    let to = moved(oblique_grid([12, 8, 10], [4.0, 2.5, 3.0]), [2.0, 1.0, 5.0]);
    assert_stays_a_ramp(from, to, Resampling::LINEAR);

    let mut state = 1_u64;
    let noise_grid = grid([400, 40, 40], [1.0, 1.0, 1.0]);
    let noise: Vec<f32> = (0..noise_grid.voxel_count())
        .map(|_| state_step(&mut state))
        .collect();
    let noise = Image {
        samples: Samples::F32(noise),
        geometry: noise_grid,
    };
    let coarse = moved(grid([100, 40, 40], [4.0, 1.0, 1.0]), [0.375, 0.0, 0.0]);
    let averaged = resample(&noise, &coarse, Resampling::LINEAR).unwrap();
    let ratio = variance(&values(&averaged)) / variance(&values(&noise));
    assert!(
        (ratio - 0.25).abs() < 0.03,
        "variance fell to {ratio}, expected a quarter"
    );
}

fn state_step(state: &mut u64) -> f32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 40) as f32 / (1 << 24) as f32
}

fn variance(values: &[f32]) -> f64 {
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
    squares.sum::<f64>() / values.len() as f64
}

#[test]
fn permuted_and_flipped_axes_only_move_voxels() {
    let from = grid([3, 4, 5], [1.0, 2.0, 3.0]);
    let scan = image(from.clone(), |[x, y, z]| x + 10.0 * y + 100.0 * z);
    // i runs down z, j up x, k down y.
    let turned = turned(
        [5, 3, 4],
        [3.0, 1.0, 2.0],
        [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]],
    );
    let turned = moved(turned, [-4.0, 0.0, -3.0]);
    for interpolation in [
        Interpolation::Nearest,
        Interpolation::Linear,
        Interpolation::Cubic,
    ] {
        let there = resample(&scan, &turned, sampled(interpolation)).unwrap();
        assert_eq!(there.samples.value(0), 60.0 + 1200.0);
        let back = resample(&there, &from, sampled(interpolation)).unwrap();
        assert_eq!(back, scan);
    }
}

#[test]
fn a_ramp_stays_a_ramp_on_turned_axes_of_many_rows() {
    // i runs down z, j up x, k down y; and i up y, j up z, k down x.
    let axes = [
        [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]],
        [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    ];
    let starts = [[5.0, 48.0, 58.0], [60.0, 0.5, 2.0]];
    for (axes, start) in axes.into_iter().zip(starts) {
        let to = placed(turned([43, 40, 30], [1.1, 1.2, 1.3], axes), start);
        let from = grid([64, 50, 60], [1.0; 3]);
        assert_stays_a_ramp(from, to, sampled(Interpolation::Linear));
    }
}

#[test]
fn cubic_goes_through_the_voxels_and_follows_a_parabola() {
    let from = oblique_grid([40, 6, 5], [1.0, 2.0, 1.5]);
    let parabola = volume(from.clone(), |[i, _, _]| (i as f32 - 20.0).powi(2));
    let parabola = Image {
        samples: Samples::F32(parabola.voxels),
        geometry: from.clone(),
    };
    let start = from.affine.apply([16.0, 0.0, 0.0]);
    let finer = placed(oblique_grid([17, 6, 5], [0.5, 2.0, 1.5]), start);
    let result = resample(&parabola, &finer, sampled(Interpolation::Cubic)).unwrap();
    for (i, value) in values(&result)[..17].iter().enumerate() {
        let expected = (i as f32 / 2.0 - 4.0).powi(2);
        assert!(
            (value - expected).abs() < 1e-3,
            "{value}, expected {expected}"
        );
    }
}

#[test]
fn integers_stay_integers_with_their_slope() {
    let scan = Image {
        samples: Samples::U16(Scaled {
            stored: vec![0, 1000, 2001],
            slope: 1.0,
            intercept: -1024.0,
        }),
        geometry: grid([3, 1, 1], [1.0, 1.0, 1.0]),
    };
    let finer = grid([7, 1, 1], [0.5, 1.0, 1.0]);
    let resampling = Resampling {
        fill_value: -1000.0,
        ..Resampling::LINEAR
    };
    let result = resample(&scan, &finer, resampling).unwrap();
    let Samples::U16(scaled) = &result.samples else {
        panic!("the stored type changed");
    };
    assert_eq!(scaled.stored, [0, 500, 1000, 1500, 2001, 24, 24]);
    let below = Resampling {
        fill_value: -2000.0,
        ..resampling
    };
    assert_eq!(resample(&scan, &finer, below).unwrap_err().exit_code(), 2);
}

#[test]
fn values_are_not_rounded_to_the_stored_type() {
    let scan = Image {
        samples: Samples::I16(Scaled {
            stored: vec![0, 1, 3],
            slope: 2.0,
            intercept: -5.0,
        }),
        geometry: grid([3, 1, 1], [1.0, 1.0, 1.0]),
    };
    let finer = grid([7, 1, 1], [0.5, 1.0, 1.0]);
    let found = resample_values(&scan, &finer, -9.0).unwrap();
    assert_eq!(found, [-5.0, -4.0, -3.0, -1.0, 1.0, -9.0, -9.0]);
    let turned = oblique_grid([2, 1, 1], [1.0, 1.0, 1.0]);
    assert_eq!(resample_values(&scan, &turned, 0.0).unwrap()[0], -5.0);
}

#[test]
fn a_share_of_a_mask_is_what_averaging_says() {
    // New voxels are two wide: the box of sqrt(3) voxels, integrated over linear interpolation.
    let fine = mask(grid([8, 1, 1], [1.0, 1.0, 1.0]), |[i, _, _]| i < 3);
    let coarse = moved(grid([4, 1, 1], [2.0, 1.0, 1.0]), [0.25, 0.0, 0.0]);
    let half = resample_share(&fine, &coarse, 0.4).unwrap();
    let any = resample_share(&fine, &coarse, 0.001).unwrap();
    assert_eq!(half.voxels, [1, 1, 0, 0]);
    assert_eq!(any.voxels, [1, 1, 0, 0]);
    let trace = mask(grid([8, 1, 1], [1.0, 1.0, 1.0]), |[i, _, _]| i == 3);
    let found = resample_share(&trace, &coarse, 0.001).unwrap();
    assert_eq!(found.voxels, [0, 1, 1, 0]);
}

#[test]
fn labels_take_the_closest_and_the_higher_index_when_two_are() {
    let labels = volume(grid([4, 1, 1], [1.0, 1.0, 1.0]), |[i, _, _]| i as i32 + 1);
    let coarse = moved(grid([3, 1, 1], [2.0, 1.0, 1.0]), [0.25, 0.0, 0.0]);
    assert_eq!(resample_labels(&labels, &coarse).unwrap().voxels, [2, 4, 0]);
    let oblique = oblique_grid([2, 1, 1], [1.0, 1.0, 1.0]);
    assert_eq!(resample_labels(&labels, &oblique).unwrap().voxels, [1, 2]);
}

#[test]
fn values_above_a_threshold_are_marked_where_interpolation_crosses_it() {
    let logits = volume(grid([3, 2, 1], [4.0, 4.0, 4.0]), |[i, _, _]| i as f32 - 1.0);
    let native = grid([12, 5, 1], [1.0, 1.0, 1.0]);
    let marked = resample_above(&logits, &native, 0.3).unwrap();
    assert_eq!(marked, mask(native, |[i, _, _]| (6..10).contains(&i)));
}

#[test]
fn threads_do_not_change_a_bit() {
    let scan = image(oblique_grid([33, 29, 41], [0.7, 0.9, 1.3]), |[x, y, z]| {
        (x * 1.3).sin() * 100.0 + (y * 0.7).cos() * 50.0 + z
    });
    let parallel = oblique_grid([20, 30, 37], [1.1, 0.8, 1.5]);
    let other = grid([20, 20, 20], [1.2, 1.2, 1.2]);
    for (to, interpolation) in [
        (&parallel, Interpolation::Linear),
        (&parallel, Interpolation::Cubic),
        (&other, Interpolation::Cubic),
    ] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let resampling = Resampling {
                interpolation,
                ..Resampling::LINEAR
            };
            pool.build()
                .unwrap()
                .install(|| resample(&scan, to, resampling).unwrap())
        };
        assert_eq!(run(1), run(5));
    }
}

proptest! {
    #[test]
    fn a_volume_on_its_own_grid_is_unchanged(
        shape in prop::array::uniform3(1_usize..7),
        spacing in prop::array::uniform3(0.3_f64..5.0),
        seed in 0_u64..1000,
    ) {
        let mut state = seed;
        let geometry = moved(oblique_grid(shape, spacing), [3.3, -17.9, 8.1]);
        let values = (0..geometry.voxel_count()).map(|_| state_step(&mut state)).collect();
        let scan = Image { samples: Samples::F32(values), geometry };
        for interpolation in [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic] {
            let resampling = Resampling { interpolation, ..Resampling::LINEAR };
            prop_assert_eq!(&resample(&scan, &scan.geometry, resampling).unwrap(), &scan);
        }
    }
}
