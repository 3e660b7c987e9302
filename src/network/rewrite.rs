//! A model whose 3×3×3 convolutions, and what turns blocks of cells into channels, are nodes of our own operators.
//!
//! What ONNX Runtime does with a convolution in three dimensions takes four times as many multiplications,
//! and normalising the channels of each voxel takes it two transpositions. A node goes over where it has
//! stride 1 and a zero around its input, and weights that are part of the model; what follows on it alone,
//! channels that are normalised and negative values that are left out, goes with it. A transposition of six axes
//! and more, for which ONNX Runtime moves number by number on one thread, goes over where its values are
//! convolved next: so they are 32 bits wide. All others stay.
//!
//! # Source
//! `onnx.proto` of ONNX 1.19 (messages and field numbers); the wire format of Protocol Buffers.

mod graph;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use graph::{FLOAT, Fields, Graph, others, put_bytes, put_number, put_varint, texts};

use super::onnx::{Field, Value};
use super::operator::{self, Convolve, Turn};

/// More weights than this many pairs of channels stay: four times as much is kept for each, and the layers
/// that have more see few voxels.
const MOST_PAIRS: u64 = 128 * 128;
/// Fewer inputs than this stay: there is little to gain.
const LEAST_INPUTS: u64 = 8;
/// The channels of a voxel side by side, and back.
const CHANNELS_LAST: [u64; 5] = [0, 2, 3, 4, 1];
const CHANNELS_FIRST: [u64; 5] = [0, 4, 1, 2, 3];
/// Axes of transpositions that go over; twice as many as blocks have is more than any network has.
const TURNED_AXES: std::ops::RangeInclusive<usize> = 6..=16;
/// What ONNX normalises with where nothing is said.
const EPSILON: f32 = 1e-5;

/// The model with our operators in it; `None` where there is nothing for them.
pub(super) fn with_our_operators(model: &[u8]) -> Option<Vec<u8>> {
    let bytes = graph_of(model)?;
    let graph = Graph::read(bytes)?;
    let nodes = graph.rewritten()?;
    let others = |message| others(message).map(|(raw, _)| raw);
    let mut set = Vec::new();
    put_bytes(&mut set, 1, operator::DOMAIN.as_bytes());
    put_number(&mut set, 2, 1);
    let length = nodes.iter().map(|node| node.len());
    let length: usize = length.chain(others((bytes, 1)).map(<[u8]>::len)).sum();
    // Written once: weights are nearly all of a model.
    let mut out = Vec::with_capacity(model.len() - bytes.len() + length + 2 * set.len());
    others((model, 7)).for_each(|raw| out.extend_from_slice(raw));
    put_bytes(&mut out, 8, &set);
    put_varint(&mut out, 7 << 3 | 2);
    put_varint(&mut out, length as u64);
    nodes.iter().for_each(|node| out.extend_from_slice(node));
    others((bytes, 1)).for_each(|raw| out.extend_from_slice(raw));
    Some(out)
}

/// A model that gives back the one number that it gets.
pub(super) fn model_of_nothing() -> Vec<u8> {
    /// The oldest format and operators that a model of today may have.
    const FORMAT: u64 = 8;
    const OPERATORS: u64 = 13;
    let message = |fields: &[(u64, &[u8])]| {
        let mut out = Vec::new();
        let put = |&(number, bytes): &(u64, &[u8])| put_bytes(&mut out, number, bytes);
        fields.iter().for_each(put);
        out
    };
    let number = |field, value| {
        let mut out = Vec::new();
        put_number(&mut out, field, value);
        out
    };
    let node = message(&[(1, b"in"), (2, b"out"), (4, b"Identity")]);
    let shape = message(&[(1, &number(1, 1))]);
    let tensor = [number(1, FLOAT), message(&[(2, &shape)])].concat();
    let kind = message(&[(1, &tensor)]);
    let value = |name| message(&[(1, name), (2, &kind)]);
    let graph = message(&[
        (1, &node),
        (2, b"nothing"),
        (11, &value(b"in")),
        (12, &value(b"out")),
    ]);
    let parts = message(&[(7, &graph), (8, &number(2, OPERATORS))]);
    [number(1, FORMAT), parts].concat()
}

/// The graph of a model that does not know our operators yet; one that comes in parts is none.
fn graph_of(model: &[u8]) -> Option<&[u8]> {
    let mut graph = None;
    for field in Fields(model) {
        let (_, Field { number, value }) = field?;
        match (number, value) {
            (7, Value::Bytes(bytes)) if graph.is_none() => graph = Some(bytes),
            (7, _) => return None,
            (8, Value::Bytes(set)) if texts(set, 1)?.contains(&operator::DOMAIN) => return None,
            _ => {}
        }
    }
    graph
}

/// Nodes that become one of ours.
struct Found<'a> {
    nodes: Vec<usize>,
    inputs: Vec<&'a str>,
    output: &'a str,
    becomes: Ours<'a>,
}

/// The operator that nodes become, with its attributes.
enum Ours<'a> {
    Convolve(Attributes),
    Turn { order: &'a [u64] },
}

#[derive(Default)]
struct Attributes {
    bias: bool,
    norm: Option<f32>,
    relu: bool,
}

/// Which nodes use a tensor.
type Users<'a> = HashMap<&'a str, Vec<usize>>;

impl<'a> Graph<'a> {
    /// The nodes as fields of the graph, ours among them; `None` where there are none of ours.
    fn rewritten(&self) -> Option<Vec<Cow<'_, [u8]>>> {
        let mut users = Users::new();
        for (n, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                users.entry(input).or_default().push(n);
            }
        }
        let found: Vec<Found> = (0..self.nodes.len())
            .filter_map(|n| self.convolution(n, &users).or_else(|| self.turn(n, &users)))
            .collect();
        if found.is_empty() {
            return None;
        }
        let gone: HashSet<usize> = found.iter().flat_map(|f| f.nodes.iter().copied()).collect();
        let ours: HashMap<usize, &Found> = found
            .iter()
            .filter_map(|found| Some((*found.nodes.last()?, found)))
            .collect();
        let mut nodes = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            if let Some(found) = ours.get(&n) {
                let mut field = Vec::new();
                put_bytes(&mut field, 1, &found.node());
                nodes.push(Cow::Owned(field));
            } else if !gone.contains(&n) {
                nodes.push(Cow::Borrowed(node.raw));
            }
        }
        Some(nodes)
    }

    /// The node that alone uses a tensor, which nobody asks for.
    fn next(&self, users: &Users, tensor: &str) -> Option<usize> {
        let &[user] = users.get(tensor)?.as_slice() else {
            return None;
        };
        (!self.outputs.contains(tensor)).then_some(user)
    }

    /// A transposition whose values are convolved next.
    fn turn(&self, n: usize, users: &Users) -> Option<Found<'_>> {
        let node = &self.nodes[n];
        let order = node.numbers("perm");
        if node.operator != "Transpose" || !TURNED_AXES.contains(&order.len()) {
            return None;
        }
        let mut axes = order.to_vec();
        axes.sort_unstable();
        if !axes.iter().enumerate().all(|(n, axis)| *axis == n as u64) {
            return None;
        }
        let (&input, &output) = (node.inputs.first()?, node.outputs.first()?);
        let shaped = self.next(users, output).map(|n| &self.nodes[n]);
        let shaped =
            shaped.filter(|node| node.operator == "Reshape" && node.inputs[0] == output)?;
        let convolved = self
            .next(users, shaped.outputs.first()?)
            .map(|n| &self.nodes[n]);
        let convolved = convolved.filter(|node| node.operator == "Conv")?;
        self.constants.get(convolved.inputs.get(1)?)?;
        Some(Found {
            nodes: vec![n],
            inputs: vec![input],
            output,
            becomes: Ours::Turn { order },
        })
    }

    /// What begins with a convolution that can be ours.
    fn convolution(&self, n: usize, users: &Users) -> Option<Found<'_>> {
        let node = &self.nodes[n];
        if node.operator != "Conv" || !node.is_plain() {
            return None;
        }
        let (input, weights) = (*node.inputs.first()?, *node.inputs.get(1)?);
        let &[outputs, inputs, 3, 3, 3] = self.constants.get(weights)?.as_slice() else {
            return None;
        };
        if outputs == 0 || inputs < LEAST_INPUTS || outputs.checked_mul(inputs)? > MOST_PAIRS {
            return None;
        }
        let bias = node.inputs.get(2).filter(|name| !name.is_empty());
        if bias.is_some_and(|name| !self.is_vector(name, outputs)) {
            return None;
        }
        let mut found = Found {
            nodes: vec![n],
            inputs: [input, weights].into_iter().chain(bias.copied()).collect(),
            output: node.outputs.first()?,
            becomes: Ours::Convolve(Attributes::default()),
        };
        let next = |output: &str| self.next(users, output);
        let norm = self.take_norm(&mut found, outputs, next);
        let relu = next(found.output).filter(|n| self.nodes[*n].operator == "Relu");
        if let Some(n) = relu {
            found.output = self.nodes[n].outputs.first()?;
            found.nodes.push(n);
        }
        found.becomes = Ours::Convolve(Attributes {
            bias: bias.is_some(),
            norm,
            relu: relu.is_some(),
        });
        Some(found)
    }

    /// Takes what normalises the channels of each voxel, if that follows; what is added to the variance.
    fn take_norm<'b>(
        &'b self,
        found: &mut Found<'b>,
        channels: u64,
        next: impl Fn(&str) -> Option<usize>,
    ) -> Option<f32> {
        let is = |n: usize, name: &str| self.nodes[n].operator == name;
        let turns = |n: usize, order: [u64; 5]| {
            is(n, "Transpose") && self.nodes[n].numbers("perm") == order
        };
        // Exporters widen what is wide already.
        let widens = |n: &usize| is(*n, "Cast") && self.nodes[*n].number("to", 0) == FLOAT;
        let wide = next(found.output).filter(widens);
        let output = match wide {
            Some(n) => self.nodes[n].outputs.first()?,
            None => found.output,
        };
        let there = next(output).filter(|n| turns(*n, CHANNELS_LAST))?;
        let norm =
            next(self.nodes[there].outputs.first()?).filter(|n| is(*n, "LayerNormalization"))?;
        let back = next(self.nodes[norm].outputs.first()?).filter(|n| turns(*n, CHANNELS_FIRST))?;
        let node = &self.nodes[norm];
        let last = [u64::MAX, 4].contains(&node.number("axis", u64::MAX));
        let &[_, scale, shift] = node.inputs.as_slice() else {
            return None;
        };
        let known = self.is_vector(scale, channels) && self.is_vector(shift, channels);
        if !last || node.outputs.len() > 1 || !known {
            return None;
        }
        found.inputs.extend([scale, shift]);
        found
            .nodes
            .extend(wide.into_iter().chain([there, norm, back]));
        found.output = self.nodes[back].outputs.first()?;
        let epsilon = node.attributes.get("epsilon").and_then(|a| a.float);
        Some(epsilon.unwrap_or(EPSILON))
    }
}

impl Found<'_> {
    fn node(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for input in &self.inputs {
            put_bytes(&mut out, 1, input.as_bytes());
        }
        put_bytes(&mut out, 2, self.output.as_bytes());
        let (name, attributes) = match &self.becomes {
            Ours::Convolve(attributes) => (Convolve::NAME, attributes.written()),
            Ours::Turn { order } => (Turn::NAME, vec![attribute(Turn::ORDER, 8, 7, order)]),
        };
        put_bytes(&mut out, 4, name.as_bytes());
        for attribute in attributes {
            put_bytes(&mut out, 5, &attribute);
        }
        put_bytes(&mut out, 7, operator::DOMAIN.as_bytes());
        out
    }
}

impl Attributes {
    fn written(&self) -> Vec<Vec<u8>> {
        let mut epsilon = Vec::new();
        put_bytes(&mut epsilon, 1, Convolve::EPSILON.as_bytes());
        epsilon.push(2 << 3 | 5);
        epsilon.extend(self.norm.unwrap_or_default().to_le_bytes());
        put_number(&mut epsilon, 20, 1);
        let says = |name, yes| attribute(name, 3, 2, &[u64::from(yes)]);
        vec![
            says(Convolve::BIAS, self.bias),
            says(Convolve::NORM, self.norm.is_some()),
            says(Convolve::RELU, self.relu),
            epsilon,
        ]
    }
}

/// An attribute of numbers: the field that holds them, and the type's own number.
fn attribute(name: &str, field: u64, kind: u64, numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    numbers.iter().for_each(|n| put_number(&mut out, field, *n));
    put_number(&mut out, 20, kind);
    out
}

#[cfg(test)]
mod tests;
