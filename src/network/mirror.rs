//! Mirroring of tensors, for networks that are also shown a scan's mirror images.

/// Mirrors every channel of a tensor along an axis (0 = slowest).
pub fn mirror(values: &mut [f32], lengths: [usize; 3], axis: usize) {
    let inner: usize = lengths[axis + 1..].iter().product();
    let length = lengths[axis];
    for block in values.chunks_mut(inner * length) {
        for n in 0..length / 2 {
            let (low, high) = block.split_at_mut((length - 1 - n) * inner);
            low[n * inner..(n + 1) * inner].swap_with_slice(&mut high[..inner]);
        }
    }
}

/// Every combination of axes, the empty one first, then single ones, then pairs, then all; sums of
/// floats depend on the order.
pub fn combinations(axes: &[usize]) -> Vec<Vec<usize>> {
    let subsets = 0..1_usize << axes.len();
    let mut found: Vec<Vec<usize>> = subsets
        .map(|bits| {
            let chosen = axes.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
            chosen.map(|(_, &axis)| axis).collect()
        })
        .collect();
    let place = |axis: &usize| axes.iter().position(|a| a == axis);
    let key = |some: &Vec<usize>| (some.len(), some.iter().map(place).collect::<Vec<_>>());
    found.sort_by_key(key);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_come_in_the_order_of_their_sizes() {
        let none = Vec::<usize>::new();
        assert_eq!(combinations(&[]), std::slice::from_ref(&none));
        assert_eq!(combinations(&[1]), [none.clone(), vec![1]]);
        let all = [
            none,
            vec![0],
            vec![1],
            vec![2],
            vec![0, 1],
            vec![0, 2],
            vec![1, 2],
            vec![0, 1, 2],
        ];
        assert_eq!(combinations(&[0, 1, 2]), all);
    }

    #[test]
    fn mirroring_turns_one_axis_round_in_every_channel() {
        let values: Vec<f32> = (0..24).map(|n| n as f32).collect();
        for (axis, first) in [(0, 6.0), (1, 3.0), (2, 2.0)] {
            let mut mirrored = values.clone();
            mirror(&mut mirrored, [2, 2, 3], axis);
            assert_eq!((mirrored[0], mirrored[12]), (first, 12.0 + first));
            mirror(&mut mirrored, [2, 2, 3], axis);
            assert_eq!(mirrored, values);
        }
    }
}
