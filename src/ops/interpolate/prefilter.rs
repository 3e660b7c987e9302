//! From voxels to cubic B-spline coefficients, mirrored about the outermost centres.
//!
//! # Source
//! Unser, doi:10.1109/79.799930, box 2: pole √3 − 2, gain 6, one pass each way.

/// The pole of the cubic B-spline's inverse filter, √3 − 2.
const POLE: f32 = -0.267_949_2;

/// Gain of the two passes together.
const GAIN: f32 = 6.0;

/// Lines after which the filter has forgotten where it began: |pole|¹⁴ is 1e-8.
pub(super) const MEMORY: usize = 14;

/// Filters across lines: `lines` holds lines of `width` values, and each of the `width` columns is a
/// signal of its own.
pub(super) fn across(lines: &mut [f32], width: usize) {
    let count = lines.len() / width;
    if count < 2 {
        return;
    }
    start_forward(lines, width, count);
    for n in 1..count {
        let (before, after) = lines.split_at_mut(n * width);
        let previous = &before[(n - 1) * width..];
        for (value, previous) in after[..width].iter_mut().zip(previous) {
            *value = GAIN * *value + POLE * previous;
        }
    }
    start_backward(lines, width, count);
    for n in (0..count - 1).rev() {
        let (before, after) = lines.split_at_mut((n + 1) * width);
        let line = &mut before[n * width..];
        for (value, next) in line.iter_mut().zip(&after[..width]) {
            *value = POLE * (next - *value);
        }
    }
}

/// First causal line: the sum over the mirrored signal, as far as the filter remembers.
fn start_forward(lines: &mut [f32], width: usize, count: usize) {
    let period = 2 * (count - 1);
    for column in 0..width {
        let mut sum = 0.0;
        let mut power = 1.0;
        for n in 0..=MEMORY {
            let folded = (n % period).min(period - n % period);
            sum += power * lines[folded * width + column];
            power *= POLE;
        }
        // Not in place before the sum is complete, and no later line reads the raw value again.
        lines[column] = GAIN * sum;
    }
}

/// Last anti-causal line, from the mirror's symmetry.
fn start_backward(lines: &mut [f32], width: usize, count: usize) {
    let factor = POLE / (POLE * POLE - 1.0);
    let (before, last) = lines.split_at_mut((count - 1) * width);
    let previous = &before[(count - 2) * width..];
    for (value, previous) in last.iter_mut().zip(previous) {
        *value = factor * (*value + POLE * previous);
    }
}
