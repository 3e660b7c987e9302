//! The lower envelope of parabolas along a line of voxels.

/// The lowest of several parabolas of equal width, wherever one looks.
#[derive(Default)]
pub(super) struct Envelope {
    apexes: Vec<Apex>,
    /// Position from which each parabola is the lowest.
    starts: Vec<f64>,
}

/// The foot of a parabola.
#[derive(Clone, Copy, Debug)]
pub(super) struct Apex {
    /// Voxel along the line.
    pub position: usize,
    /// Squared distance there [mm²].
    pub height: f64,
}

impl Apex {
    /// Squared distance at voxel `n` [mm²].
    pub fn square_at(&self, n: usize, spacing: f64) -> f64 {
        self.height + (n.abs_diff(self.position) as f64 * spacing).powi(2)
    }

    /// Where a parabola further on becomes lower than this one.
    fn gives_way_to(&self, later: &Self, spacing: f64) -> f64 {
        let (a, b) = (self.position as f64, later.position as f64);
        (a + b + (later.height - self.height) / (spacing * spacing * (b - a))) / 2.0
    }
}

impl Envelope {
    /// Lays a parabola on every voxel whose height is finite.
    pub fn build(&mut self, heights: &[f64], spacing: f64) {
        self.apexes.clear();
        self.starts.clear();
        for (position, &height) in heights.iter().enumerate() {
            if height == f64::INFINITY {
                continue;
            }
            let apex = Apex { position, height };
            let mut start = f64::NEG_INFINITY;
            while let (Some(last), Some(&last_start)) = (self.apexes.last(), self.starts.last()) {
                start = last.gives_way_to(&apex, spacing);
                if start > last_start {
                    break;
                }
                self.apexes.pop();
                self.starts.pop();
                start = f64::NEG_INFINITY;
            }
            self.apexes.push(apex);
            self.starts.push(start);
        }
    }

    /// Visits ascending positions with the parabola that is the lowest there; `None` without any.
    pub fn walk(
        &self,
        positions: impl Iterator<Item = usize>,
        mut visit: impl FnMut(usize, Option<&Apex>),
    ) {
        let mut current = 0;
        for position in positions {
            while self
                .starts
                .get(current + 1)
                .is_some_and(|&start| start < position as f64)
            {
                current += 1;
            }
            visit(position, self.apexes.get(current));
        }
    }
}
