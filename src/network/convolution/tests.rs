//! [`Convolution`] against its definition.

use super::slab::Slab;
use super::*;
use crate::lanes::Task;
use proptest::prelude::*;

/// Numbers between -1 and 1 that look random.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// A convolution by its definition.
fn defined(
    weights: &[f32],
    [outputs, inputs]: [usize; 2],
    bias: &[f32],
    input: &[f32],
    shape: [usize; 3],
) -> Vec<f64> {
    let size: usize = shape.iter().product();
    let index = |at: [usize; 3]| {
        at.iter()
            .zip(shape)
            .fold(0, |n, (a, length)| n * length + a)
    };
    let mut out = vec![0.0; outputs * size];
    let taps = |n: usize| [n / 9, n / 3 % 3, n % 3];
    for (n, value) in out.iter_mut().enumerate() {
        let (output, voxel) = (n / size, n % size);
        let at = [
            voxel / shape[2] / shape[1],
            voxel / shape[2] % shape[1],
            voxel % shape[2],
        ];
        *value = f64::from(bias[output]);
        for (m, tap) in (0..27).map(|m| (m, taps(m))) {
            let near = [0, 1, 2].map(|a| (at[a] + tap[a]).wrapping_sub(1));
            if near.iter().zip(shape).any(|(at, length)| *at >= length) {
                continue;
            }
            for c in 0..inputs {
                let weight = f64::from(weights[(output * inputs + c) * 27 + m]);
                *value += weight * f64::from(input[c * size + index(near)]);
            }
        }
    }
    out
}

/// What comes of it with lanes of one width.
fn found<const N: usize>(of: &Convolution, input: &[f32], shape: [usize; 3]) -> Vec<f32> {
    let size: usize = shape.iter().product();
    let mut output = vec![f32::NAN; of.outputs * size];
    let mut planes: Vec<_> = output.chunks_exact_mut(shape[1] * shape[2]).collect();
    let slab = Slab {
        of,
        input,
        shape,
        range: 0..shape[0],
        planes: &mut planes,
    };
    slab.run::<[f32; N]>();
    output
}

fn largest_difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let apart = |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs();
    found
        .iter()
        .zip(expected)
        .map(apart)
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_is_a_convolution_whatever_the_shape(
        channels in [1..10_usize, 1..10_usize],
        shape in [1..24_usize, 1..34_usize, 1..50_usize],
        threads in 1..5_usize,
        seed in any::<u64>(),
    ) {
        let [outputs, inputs] = channels;
        let weights = numbers(outputs * inputs * 27, seed);
        let bias = numbers(outputs, seed ^ 1);
        let input = numbers(inputs * shape.iter().product::<usize>(), seed ^ 2);
        let expected = defined(&weights, channels, &bias, &input, shape);
        let of = Convolution::new(&weights, channels, &bias);
        let mut output = vec![f32::NAN; expected.len()];
        of.run(&input, shape, &mut output, threads, |count, part| (0..count).rev().for_each(part));
        prop_assert!(largest_difference(&output, &expected) < 2e-4);
        for other in [found::<4>(&of, &input, shape), found::<16>(&of, &input, shape)] {
            prop_assert!(largest_difference(&other, &expected) < 2e-4);
        }
    }
}

#[test]
fn how_the_work_is_shared_changes_no_bit() {
    let (channels, shape) = ([6, 5], [19, 30, 41]);
    let weights = numbers(6 * 5 * 27, 3);
    let input = numbers(5 * shape.iter().product::<usize>(), 4);
    let of = Convolution::new(&weights, channels, &[]);
    let run = |threads: usize| {
        let mut output = vec![f32::NAN; 6 * shape.iter().product::<usize>()];
        of.run(&input, shape, &mut output, threads, |count, part| {
            (0..count).for_each(part)
        });
        output
    };
    assert!(run(1) == run(2) && run(1) == run(7) && run(1) == run(64));
    // The widths of x86's registers round alike.
    assert!(found::<8>(&of, &input, shape) == found::<16>(&of, &input, shape));
}

#[test]
fn channels_are_normalised_and_what_is_negative_left_out() {
    let (channels, shape) = ([5, 3], [3, 7, 9]);
    let size: usize = shape.iter().product();
    let weights = numbers(5 * 3 * 27, 5);
    let input = numbers(3 * size, 6);
    let (scale, shift) = (numbers(5, 7), numbers(5, 8));
    let plain = defined(&weights, channels, &[0.0; 5], &input, shape);
    let mut expected = plain.clone();
    for voxel in 0..size {
        let mean = (0..5).map(|c| plain[c * size + voxel]).sum::<f64>() / 5.0;
        let apart = |c: usize| plain[c * size + voxel] - mean;
        let variance = (0..5).map(|c| apart(c).powi(2)).sum::<f64>() / 5.0;
        for c in 0..5 {
            let unit = apart(c) / (variance + 1e-3).sqrt();
            let value = unit * f64::from(scale[c]) + f64::from(shift[c]);
            expected[c * size + voxel] = value.max(0.0);
        }
    }
    let norm = Norm {
        epsilon: 1e-3,
        scale,
        shift,
    };
    let of = Convolution::new(&weights, channels, &[]).followed_by(Some(norm), true);
    for found in [
        found::<4>(&of, &input, shape),
        found::<16>(&of, &input, shape),
    ] {
        assert!(largest_difference(&found, &expected) < 1e-4);
    }
}

#[test]
fn what_is_no_number_is_not_taken_for_one() {
    let shape = [3, 9, 9];
    let mut input = numbers(3 * 9 * 9, 9);
    input[9 * 9 + 4 * 9 + 4] = f32::NAN;
    let of = Convolution::new(&numbers(27, 10), [1, 1], &[]).followed_by(None, true);
    let output = found::<8>(&of, &input, shape);
    let near = [[1, 4, 4], [0, 3, 3], [2, 5, 5]].map(|[k, j, i]| output[(k * 9 + j) * 9 + i]);
    assert!(near.iter().all(|value| value.is_nan()));
    assert!(output[0] >= 0.0 && output[8] >= 0.0);
}
