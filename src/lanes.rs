//! Vectors of numbers, as wide as the processor at hand has them.
//!
//! What is written once over [`Lanes`] is compiled for each width; [`run`] picks the widest that this
//! processor has. Arrays of a fixed length are enough for the compiler to put each into one register.

/// Numbers that are worked on together.
pub trait Lanes: Copy {
    /// How many.
    const COUNT: usize;

    /// The same number in each.
    fn splat(value: f32) -> Self;

    /// The first numbers of a slice, which has as many at least.
    fn load(from: &[f32]) -> Self;

    /// Puts them at the start of a slice.
    fn store(self, to: &mut [f32]);

    /// `self + other`.
    fn add(self, other: Self) -> Self;

    /// `self - other`.
    fn sub(self, other: Self) -> Self;

    /// `self * factor + other`, rounded once.
    fn mul_add(self, factor: Self, other: Self) -> Self;

    /// 1 over the square root.
    fn inverse_root(self) -> Self;

    /// One of each quad of numbers: the first `COUNT` numbers at `from[0]`, `from[4]`, `from[8]`, …
    fn load_fourth(from: &[f32]) -> Self;

    /// Puts four rows into one, the first of each, then the second of each, …
    fn store_quads(rows: [Self; 4], to: &mut [f32]);
}

impl<const N: usize> Lanes for [f32; N] {
    const COUNT: usize = N;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; N]
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let mut lanes = [0.0; N];
        lanes.copy_from_slice(&from[..N]);
        lanes
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..N].copy_from_slice(&self);
    }

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for n in 0..N {
            self[n] += other[n];
        }
        self
    }

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for n in 0..N {
            self[n] -= other[n];
        }
        self
    }

    #[inline(always)]
    fn mul_add(mut self, factor: Self, other: Self) -> Self {
        for n in 0..N {
            self[n] = self[n].mul_add(factor[n], other[n]);
        }
        self
    }

    #[inline(always)]
    fn inverse_root(mut self) -> Self {
        for value in &mut self {
            *value = 1.0 / value.sqrt();
        }
        self
    }

    #[inline(always)]
    fn load_fourth(from: &[f32]) -> Self {
        let from = &from[..4 * N - 3];
        let mut lanes = [0.0; N];
        for (n, lane) in lanes.iter_mut().enumerate() {
            *lane = from[4 * n];
        }
        lanes
    }

    #[inline(always)]
    fn store_quads(rows: [Self; 4], to: &mut [f32]) {
        let to = &mut to[..4 * N];
        for n in 0..N {
            for (c, row) in rows.iter().enumerate() {
                to[4 * n + c] = row[n];
            }
        }
    }
}

/// Work that is written over [`Lanes`].
pub trait Task {
    /// Does it.
    fn run<V: Lanes>(self);
}

/// Whether this processor multiplies and adds in one step, without which [`Lanes::mul_add`] is slow.
#[cfg(target_arch = "x86_64")]
pub fn are_fast() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether this processor multiplies and adds in one step, without which [`Lanes::mul_add`] is slow.
#[cfg(not(target_arch = "x86_64"))]
pub fn are_fast() -> bool {
    cfg!(target_arch = "aarch64")
}

/// Does a task with the widest lanes of this processor.
#[inline]
pub fn run(task: impl Task) {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = are_fast();
        if avx2 && is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has these instructions.
            return unsafe { with_avx512(task) };
        }
        if avx2 {
            // SAFETY: the processor has these instructions.
            return unsafe { with_avx2(task) };
        }
    }
    task.run::<[f32; 4]>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn with_avx512(task: impl Task) {
    task.run::<[f32; 16]>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_avx2(task: impl Task) {
    task.run::<[f32; 8]>();
}
