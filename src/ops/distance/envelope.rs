//! The lower envelope of parabolas along a line of voxels.

/// The lowest of several parabolas of equal width, wherever one looks.
#[derive(Default)]
pub(super) struct Envelope {
    /// Parabolas in the order of their feet; those from `count` on are left over.
    apexes: Vec<Apex>,
    count: usize,
    /// One step along the line [mm²].
    step_mm2: f64,
}

/// The foot of a parabola.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apex {
    /// Voxel along the line.
    pub position: usize,
    /// Squared distance there [mm²].
    height: f64,
    /// Position from which this parabola is the lowest.
    start: f64,
}

impl Envelope {
    /// Lays a parabola on every voxel whose height is not above `highest`, which may be infinite;
    /// infinite heights carry none.
    pub fn build(&mut self, heights: &[f64], spacing: f64, highest: f64) {
        self.step_mm2 = spacing * spacing;
        self.count = 0;
        self.apexes
            .resize(heights.len().max(self.apexes.len()), Apex::default());
        let half_step = 0.5 / self.step_mm2;
        for (position, &height) in heights.iter().enumerate() {
            if height > highest || height == f64::INFINITY {
                continue;
            }
            let mut start = f64::NEG_INFINITY;
            while self.count > 0 {
                let last = &self.apexes[self.count - 1];
                let apart = position - last.position;
                let rise = (height - last.height) * half_step;
                // Neighbours, which is what most are, need no division.
                let rise = if apart == 1 {
                    rise
                } else {
                    rise / apart as f64
                };
                start = 0.5 * (position + last.position) as f64 + rise;
                if start > last.start {
                    break;
                }
                start = f64::NEG_INFINITY;
                self.count -= 1;
            }
            self.apexes[self.count] = Apex {
                position,
                height,
                start,
            };
            self.count += 1;
        }
    }

    /// Visits ascending positions with the foot of the parabola that is the lowest there and its
    /// height [mm²]; does nothing without any parabola.
    pub fn walk(
        &self,
        positions: impl Iterator<Item = usize>,
        mut visit: impl FnMut(usize, usize, f64),
    ) {
        let apexes = &self.apexes[..self.count];
        if apexes.is_empty() {
            return;
        }
        let mut current = 0;
        for position in positions {
            while let Some(next) = apexes.get(current + 1)
                && next.start < position as f64
            {
                current += 1;
            }
            let lowest = &apexes[current];
            let steps = position.abs_diff(lowest.position) as f64;
            visit(
                position,
                lowest.position,
                lowest.height + steps * steps * self.step_mm2,
            );
        }
    }
}
