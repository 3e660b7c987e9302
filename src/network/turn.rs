//! A tensor whose axes come in another order.

/// From a tensor of one shape to one of another.
pub(super) struct Turning {
    /// Length of each axis of the output, and how far apart its values lie in the input.
    axes: Vec<(usize, usize)>,
}

impl Turning {
    /// `order`: which axis of `shape` each axis of the output is; `None` where it is no order of these.
    pub fn new(shape: &[usize], order: &[usize]) -> Option<Self> {
        let mut apart = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            apart[axis - 1] = apart[axis] * shape[axis];
        }
        let mut left: Vec<Option<(usize, usize)>> =
            shape.iter().copied().zip(apart).map(Some).collect();
        let axes = order.iter().map(|&axis| left.get_mut(axis)?.take());
        let axes = axes.collect::<Option<Vec<_>>>()?;
        left.iter().all(Option::is_none).then_some(Self { axes })
    }

    /// Shape of the output.
    pub fn shape(&self) -> impl Iterator<Item = usize> {
        self.axes.iter().map(|(length, _)| *length)
    }

    /// Values of the output that are worth a call of [`Turning::turn`], whole rows, where there are any.
    pub fn part(&self, threads: usize) -> Option<usize> {
        let (row, _) = *self.axes.last()?;
        let all: usize = self.shape().product();
        let rows = all.checked_div(row)?;
        (all > 0).then(|| row * rows.div_ceil(8 * threads.max(1)))
    }

    /// Puts values of `input` in their new order: as many as `output` has rows for, from value `start` of the
    /// whole output on, where a row begins.
    pub fn turn(&self, input: &[f32], start: usize, output: &mut [f32]) {
        let Some((&(length, step), outer)) = self.axes.split_last() else {
            return;
        };
        // The place of the first row along each axis, and in the input.
        let mut rest = start / length;
        let mut at = vec![0; outer.len()];
        let mut from = 0;
        for (at, (length, step)) in at.iter_mut().zip(outer).rev() {
            *at = rest % length;
            rest /= length;
            from += *at * step;
        }
        for row in output.chunks_exact_mut(length) {
            read_row(&input[from..], step, row);
            for (at, (length, step)) in at.iter_mut().zip(outer).rev() {
                *at += 1;
                from += step;
                if *at < *length {
                    break;
                }
                from -= *at * step;
                *at = 0;
            }
        }
    }
}

/// Every `step`th value.
fn read_row(input: &[f32], step: usize, row: &mut [f32]) {
    match step {
        1 => row.copy_from_slice(&input[..row.len()]),
        2 => {
            // The last value has no partner where the input ends with it.
            let (pairs, _) = input.as_chunks::<2>();
            let paired = row.len().min(pairs.len());
            for (to, [value, _]) in row.iter_mut().zip(pairs) {
                *to = *value;
            }
            for n in paired..row.len() {
                row[n] = input[2 * n];
            }
        }
        _ => {
            for (to, value) in row.iter_mut().zip(input.iter().step_by(step)) {
                *to = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turned by definition.
    fn defined(shape: &[usize], order: &[usize], input: &[f32]) -> Vec<f32> {
        let lengths: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
        let value = |n: usize| {
            let mut rest = n;
            let mut index = vec![0; shape.len()];
            for (axis, length) in order.iter().zip(&lengths).rev() {
                index[*axis] = rest % length;
                rest /= length;
            }
            let place = index.iter().zip(shape);
            input[place.fold(0, |n, (at, length)| n * length + at)]
        };
        (0..input.len()).map(value).collect()
    }

    #[test]
    fn axes_come_in_any_order_in_parts_as_in_one() {
        let cases: [(&[usize], &[usize]); 6] = [
            (&[1, 3, 4, 2, 5, 2, 7, 2], &[0, 1, 3, 5, 7, 2, 4, 6]),
            (&[2, 2, 2, 2, 3, 4, 5], &[0, 4, 1, 5, 2, 6, 3]),
            (&[2, 3, 1, 5, 2, 3], &[5, 4, 3, 2, 1, 0]),
            (&[3, 2, 4, 1, 2, 6], &[0, 1, 2, 3, 4, 5]),
            (&[1, 1, 1, 1, 5, 2], &[0, 1, 2, 3, 5, 4]),
            (&[4], &[0]),
        ];
        for (shape, order) in cases {
            let count: usize = shape.iter().product();
            let input: Vec<f32> = (0..count).map(|n| n as f32).collect();
            let turning = Turning::new(shape, order).unwrap();
            for threads in [1, 2, 100] {
                let part = turning.part(threads).unwrap();
                let mut found = vec![0.0; count];
                for (n, found) in found.chunks_mut(part).enumerate() {
                    turning.turn(&input, n * part, found);
                }
                assert_eq!(found, defined(shape, order, &input), "{shape:?} {threads}");
            }
        }
    }

    #[test]
    fn what_is_no_order_of_the_axes_is_none_and_what_is_empty_has_no_parts() {
        for order in [&[0, 0, 1][..], &[0, 1], &[0, 1, 3], &[0, 1, 2, 2]] {
            assert!(Turning::new(&[2, 3, 4], order).is_none(), "{order:?}");
        }
        for shape in [[2, 0, 4], [2, 3, 0]] {
            let empty = Turning::new(&shape, &[2, 1, 0]).unwrap();
            assert_eq!(empty.part(2), None, "{shape:?}");
        }
        assert_eq!(Turning::new(&[], &[]).unwrap().part(1), None);
    }
}
