//! Our operators of ONNX Runtime, which a graph gets by `rewrite`.

use std::sync::{Mutex, PoisonError};

use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::TensorElementType;

use super::convolution::{Convolution, Norm};
use super::turn::Turning;

/// The domain of the operators.
pub(super) const DOMAIN: &str = "voxmask";

/// The domain with its operators, whose work `threads` threads share.
///
/// # Errors
/// What ONNX Runtime says.
pub(super) fn domain(threads: usize) -> ort::Result<OperatorDomain> {
    let domain = OperatorDomain::new(DOMAIN)?.add(Convolve { threads })?;
    domain.add(Turn { threads })
}

/// [`Convolution`] as an operator.
///
/// Inputs: the tensor `[batch][channel][k][j][i]`, the weights `[output][input][3][3][3]`, then the bias
/// where `BIAS` is 1, then scale and shift of each channel where `NORM` is 1. Weights never change from run
/// to run.
pub(super) struct Convolve {
    threads: usize,
}

impl Convolve {
    pub const NAME: &str = "Convolution";
    /// Whether there is a bias: 0 or 1.
    pub const BIAS: &str = "bias";
    /// Whether the channels of each voxel are normalised: 0 or 1.
    pub const NORM: &str = "norm";
    /// Added to the variance.
    pub const EPSILON: &str = "epsilon";
    /// Whether what is negative is left out: 0 or 1.
    pub const RELU: &str = "relu";
}

impl Operator for Convolve {
    type Kernel<'attr> = Convolving;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::variadic(2).homogenous(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Convolving> {
        let says = |name| node.get::<i64>(name) == Some(1);
        Ok(Convolving {
            threads: self.threads,
            bias: says(Self::BIAS),
            norm: says(Self::NORM).then(|| node.get::<f32>(Self::EPSILON).unwrap_or_default()),
            relu: says(Self::RELU),
            ready: None,
        })
    }
}

pub(super) struct Convolving {
    threads: usize,
    bias: bool,
    /// What is added to the variance.
    norm: Option<f32>,
    relu: bool,
    /// Made of the weights when they are there.
    ready: Option<Ready>,
}

struct Ready {
    convolution: Convolution,
    outputs: usize,
    inputs: usize,
}

impl Convolving {
    fn prepare(&self, context: &ComputeContext) -> ort::Result<Ready> {
        let weights = context.input(1)?.ok_or_else(|| unfit("weights"))?;
        let (shape, weights) = weights.try_extract_tensor::<f32>()?;
        let &[outputs, inputs, 3, 3, 3] = lengths(shape)?.as_slice() else {
            return Err(unfit("weights"));
        };
        if outputs == 0 || inputs == 0 {
            return Err(unfit("weights"));
        }
        let mut taken = 2;
        let mut next = || -> ort::Result<Vec<f32>> {
            let values = context.input(taken)?.ok_or_else(|| unfit("parameters"))?;
            taken += 1;
            let (_, values) = values.try_extract_tensor::<f32>()?;
            match values.len() == outputs {
                true => Ok(values.to_vec()),
                false => Err(unfit("parameters")),
            }
        };
        let bias = match self.bias {
            true => next()?,
            false => Vec::new(),
        };
        let norm = match self.norm {
            Some(epsilon) => Some(Norm {
                epsilon,
                scale: next()?,
                shift: next()?,
            }),
            None => None,
        };
        let convolution = Convolution::new(weights, [outputs, inputs], &bias);
        Ok(Ready {
            convolution: convolution.followed_by(norm, self.relu),
            outputs,
            inputs,
        })
    }
}

impl Kernel for Convolving {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let ready = match self.ready.take() {
            Some(ready) => ready,
            None => self.prepare(context)?,
        };
        let ready = self.ready.insert(ready);
        let input = context.input(0)?.ok_or_else(|| unfit("input"))?;
        let (shape, values) = input.try_extract_tensor::<f32>()?;
        let &[batch, channels, nk, nj, ni] = lengths(shape)?.as_slice() else {
            return Err(unfit("input"));
        };
        let voxels = nk * nj * ni;
        if channels != ready.inputs || values.len() != batch * channels * voxels {
            return Err(unfit("input"));
        }
        let shape = [batch, ready.outputs, nk, nj, ni].map(|length| length as i64);
        let mut output = context.output(0, shape)?.ok_or_else(|| unfit("output"))?;
        let (_, found) = output.try_extract_tensor_mut::<f32>()?;
        if voxels == 0 {
            return Ok(());
        }
        let found = found.chunks_exact_mut(ready.outputs * voxels);
        for (values, found) in values.chunks_exact(channels * voxels).zip(found) {
            let mut told = Ok(());
            let share = |count: usize, part: &(dyn Fn(usize) + Send + Sync)| {
                told = context.par_for(count, count, part);
            };
            let convolution = &ready.convolution;
            convolution.run(values, [nk, nj, ni], found, self.threads, share);
            told?;
        }
        Ok(())
    }
}

/// [`Turning`] as an operator: a tensor of any number of axes, which come in another order.
pub(super) struct Turn {
    threads: usize,
}

impl Turn {
    pub const NAME: &str = "Turn";
    /// Which axis of the input each axis of the output is.
    pub const ORDER: &str = "order";
}

impl Operator for Turn {
    type Kernel<'attr> = Turner;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(TensorElementType::Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Turner> {
        let order = node
            .get::<Vec<i64>>(Self::ORDER)
            .ok_or_else(|| unfit("order"))?;
        Ok(Turner {
            threads: self.threads,
            order: lengths(&order)?,
        })
    }
}

pub(super) struct Turner {
    threads: usize,
    order: Vec<usize>,
}

impl Kernel for Turner {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let input = context.input(0)?.ok_or_else(|| unfit("input"))?;
        let (shape, values) = input.try_extract_tensor::<f32>()?;
        let turning = Turning::new(&lengths(shape)?, &self.order).ok_or_else(|| unfit("input"))?;
        let shape: Vec<i64> = turning.shape().map(|length| length as i64).collect();
        let mut output = context.output(0, shape)?.ok_or_else(|| unfit("output"))?;
        let (_, found) = output.try_extract_tensor_mut::<f32>()?;
        let Some(part) = turning.part(self.threads) else {
            return Ok(());
        };
        let parts: Vec<_> = found.chunks_mut(part).map(Mutex::new).collect();
        context.par_for(parts.len(), parts.len(), |n: usize| {
            let mut found = parts[n].lock().unwrap_or_else(PoisonError::into_inner);
            turning.turn(values, n * part, &mut found);
        })
    }
}

fn lengths(shape: &[i64]) -> ort::Result<Vec<usize>> {
    let length = |n: &i64| usize::try_from(*n).map_err(|_| unfit("shape"));
    shape.iter().map(length).collect()
}

fn unfit(what: &str) -> ort::Error {
    ort::Error::new(format!("an operator got other {what} than it can take"))
}
