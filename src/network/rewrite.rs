//! A model whose 3×3×3 convolutions are nodes of our own operator.
//!
//! What ONNX Runtime does with a convolution in three dimensions takes four times as many multiplications,
//! and normalising the channels of each voxel takes it two transpositions. A node goes over where it has
//! stride 1 and a zero around its input, and weights that are part of the model; what follows on it alone,
//! channels that are normalised and negative values that are left out, goes with it. All others stay.
//!
//! # Source
//! `onnx.proto` of ONNX 1.19 (messages and field numbers); the wire format of Protocol Buffers.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::onnx::{Field, Value};
use super::operator;

/// More weights than this many pairs of channels stay: four times as much is kept for each, and the layers
/// that have more see few voxels.
const MOST_PAIRS: u64 = 128 * 128;
/// Fewer inputs than this stay: there is little to gain.
const LEAST_INPUTS: u64 = 8;
/// More nodes than any network has.
const MOST_NODES: usize = 1 << 17;
/// Data types of tensors.
const FLOAT: u64 = 1;
const HALF: u64 = 10;
/// The channels of a voxel side by side, and back.
const CHANNELS_LAST: [u64; 5] = [0, 2, 3, 4, 1];
const CHANNELS_FIRST: [u64; 5] = [0, 4, 1, 2, 3];
/// What ONNX normalises with where nothing is said.
const EPSILON: f32 = 1e-5;

/// The model with our operator in it; `None` where there is nothing for it.
pub(super) fn with_our_convolutions(model: &[u8]) -> Option<Vec<u8>> {
    let bytes = graph_of(model)?;
    let nodes = Graph::read(bytes)?.rewritten()?;
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

/// The graph of a model that does not know our operator yet; one that comes in parts is none.
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

/// The fields of a message, each with the bytes that it was read from; `None` ends what cannot be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(&'a [u8], Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let before = self.0;
        if before.is_empty() {
            return None;
        }
        let Some(field) = Field::read(&mut self.0) else {
            self.0 = &[];
            return Some(None);
        };
        Some(Some((&before[..before.len() - self.0.len()], field)))
    }
}

/// The fields of a message but those of one number.
fn others((message, number): (&[u8], u64)) -> impl Iterator<Item = (&[u8], Field<'_>)> {
    let fields = Fields(message).flatten();
    fields.filter(move |(_, field)| field.number != number)
}

/// A graph's nodes and its tensors' shapes.
struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    /// Names and shapes of the tensors that are part of the model, as they are or widened.
    constants: HashMap<&'a str, Vec<u64>>,
    /// Names that are asked for.
    outputs: HashSet<&'a str>,
}

struct Node<'a> {
    raw: &'a [u8],
    inputs: Vec<&'a str>,
    outputs: Vec<&'a str>,
    operator: &'a str,
    attributes: HashMap<&'a str, Attribute>,
}

#[derive(Default)]
struct Attribute {
    float: Option<f32>,
    number: Option<u64>,
    numbers: Vec<u64>,
    text: bool,
}

/// Nodes that become one of ours.
struct Found<'a> {
    nodes: Vec<usize>,
    inputs: Vec<&'a str>,
    output: &'a str,
    bias: bool,
    norm: Option<f32>,
    relu: bool,
}

impl<'a> Graph<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut graph = Self {
            nodes: Vec::new(),
            constants: HashMap::new(),
            outputs: HashSet::new(),
        };
        let (mut half, mut inputs) = (HashMap::new(), Vec::new());
        for field in Fields(bytes) {
            let (raw, Field { number, value }) = field?;
            let Value::Bytes(message) = value else {
                continue;
            };
            match number {
                1 if graph.nodes.len() == MOST_NODES => return None,
                1 => graph.nodes.push(Node::read(raw, message)?),
                5 => {
                    let (name, kind, shape) = read_tensor(message)?;
                    match kind {
                        FLOAT => graph.constants.insert(name, shape),
                        HALF => half.insert(name, shape),
                        _ => None,
                    };
                }
                11 => inputs.extend(texts(message, 1)?),
                12 => graph.outputs.extend(texts(message, 1)?),
                _ => {}
            }
        }
        // What a caller may replace is not constant.
        for name in inputs {
            graph.constants.remove(name);
            half.remove(name);
        }
        for node in graph.nodes.iter().filter(|node| node.operator == "Cast") {
            if let ([from], [to]) = (node.inputs.as_slice(), node.outputs.as_slice())
                && let Some(shape) = half.get(from)
                && node.number("to", 0) == FLOAT
            {
                graph.constants.insert(to, shape.clone());
            }
        }
        Some(graph)
    }

    /// The nodes as fields of the graph, ours among them; `None` where there are none of ours.
    fn rewritten(&self) -> Option<Vec<Cow<'a, [u8]>>> {
        let mut users: HashMap<&str, Vec<usize>> = HashMap::new();
        for (n, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                users.entry(input).or_default().push(n);
            }
        }
        let found: Vec<Found> = (0..self.nodes.len())
            .filter_map(|n| self.find(n, &users))
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

    /// What begins with a convolution that can be ours.
    fn find(&self, n: usize, users: &HashMap<&str, Vec<usize>>) -> Option<Found<'a>> {
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
            bias: bias.is_some(),
            norm: None,
            relu: false,
        };
        // The node that alone uses an output.
        let next = |output: &str| {
            let &[user] = users.get(output)?.as_slice() else {
                return None;
            };
            (!self.outputs.contains(output)).then_some(user)
        };
        self.take_norm(&mut found, outputs, next);
        if let Some(n) = next(found.output) {
            let node = &self.nodes[n];
            if node.operator == "Relu" {
                (found.output, found.relu) = (node.outputs.first()?, true);
                found.nodes.push(n);
            }
        }
        Some(found)
    }

    /// Whether a tensor that is part of the model holds so many numbers in a row.
    fn is_vector(&self, name: &str, length: u64) -> bool {
        self.constants
            .get(name)
            .is_some_and(|shape| *shape == [length])
    }

    /// Takes what normalises the channels of each voxel, if that follows.
    fn take_norm(
        &self,
        found: &mut Found<'a>,
        channels: u64,
        next: impl Fn(&str) -> Option<usize>,
    ) -> Option<()> {
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
        let epsilon = node.attributes.get("epsilon").and_then(|a| a.float);
        found.norm = Some(epsilon.unwrap_or(EPSILON));
        found.inputs.extend([scale, shift]);
        found
            .nodes
            .extend(wide.into_iter().chain([there, norm, back]));
        found.output = self.nodes[back].outputs.first()?;
        Some(())
    }
}

impl<'a> Node<'a> {
    /// Reads a node's message; `raw`: the field that holds it.
    fn read(raw: &'a [u8], message: &'a [u8]) -> Option<Self> {
        let onnx = |domain: &&str| domain.is_empty() || *domain == "ai.onnx";
        let known = texts(message, 7)?.iter().all(onnx);
        let operator = texts(message, 4)?.last().copied().filter(|_| known);
        let mut attributes = HashMap::new();
        for field in Fields(message) {
            let (_, Field { number, value }) = field?;
            if let (5, Value::Bytes(bytes)) = (number, value) {
                let (name, attribute) = Attribute::read(bytes)?;
                attributes.insert(name, attribute);
            }
        }
        Some(Self {
            raw,
            inputs: texts(message, 1)?,
            outputs: texts(message, 2)?,
            operator: operator.unwrap_or_default(),
            attributes,
        })
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        let attribute = self.attributes.get(name);
        attribute.and_then(|a| a.number).unwrap_or(otherwise)
    }

    fn numbers(&self, name: &str) -> &[u64] {
        self.attributes.get(name).map_or(&[], |a| &a.numbers)
    }

    /// Whether a convolution has stride 1 and a zero around its input.
    fn is_plain(&self) -> bool {
        let ones = |name: &str| self.numbers(name).iter().all(|n| *n == 1);
        let padded = self.numbers("pads") == [1; 6];
        // Which sort of padding is meant, where it is not told by `pads`.
        let told = self.attributes.get("auto_pad").is_none_or(|a| !a.text);
        padded && told && ones("strides") && ones("dilations") && self.number("group", 1) == 1
    }
}

impl Attribute {
    fn read(bytes: &[u8]) -> Option<(&str, Self)> {
        let (mut name, mut attribute) = ("", Self::default());
        for field in Fields(bytes) {
            let (_, field) = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(text)) => name = std::str::from_utf8(text).ok()?,
                (2, Value::Bytes(float)) => {
                    attribute.float = Some(f32::from_le_bytes(float.try_into().ok()?));
                }
                (3, Value::Number(number)) => attribute.number = Some(number),
                (4, Value::Bytes(text)) => attribute.text = text != b"NOTSET",
                (8, value) => value.add_numbers(&mut attribute.numbers)?,
                // A graph of its own, which may use any name of this one.
                (6 | 11, _) => return None,
                _ => {}
            }
        }
        Some((name, attribute))
    }
}

impl Found<'_> {
    fn node(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for input in &self.inputs {
            put_bytes(&mut out, 1, input.as_bytes());
        }
        put_bytes(&mut out, 2, self.output.as_bytes());
        put_bytes(&mut out, 4, operator::NAME.as_bytes());
        let says = [
            (operator::BIAS, self.bias),
            (operator::NORM, self.norm.is_some()),
            (operator::RELU, self.relu),
        ];
        for (name, yes) in says {
            let mut attribute = Vec::new();
            put_bytes(&mut attribute, 1, name.as_bytes());
            put_number(&mut attribute, 3, u64::from(yes));
            put_number(&mut attribute, 20, 2);
            put_bytes(&mut out, 5, &attribute);
        }
        let mut attribute = Vec::new();
        put_bytes(&mut attribute, 1, operator::EPSILON.as_bytes());
        attribute.push(2 << 3 | 5);
        attribute.extend(self.norm.unwrap_or_default().to_le_bytes());
        put_number(&mut attribute, 20, 1);
        put_bytes(&mut out, 5, &attribute);
        put_bytes(&mut out, 7, operator::DOMAIN.as_bytes());
        out
    }
}

/// A tensor's name, type and shape.
fn read_tensor(bytes: &[u8]) -> Option<(&str, u64, Vec<u64>)> {
    let (mut name, mut kind, mut shape) = ("", 0, Vec::new());
    for field in Fields(bytes) {
        let (_, field) = field?;
        match (field.number, field.value) {
            (1, value) => value.add_numbers(&mut shape)?,
            (2, Value::Number(number)) => kind = number,
            (8, Value::Bytes(text)) => name = std::str::from_utf8(text).ok()?,
            _ => {}
        }
    }
    Some((name, kind, shape))
}

/// The texts in the fields of a number; `None` where the message cannot be read.
fn texts(message: &[u8], wanted: u64) -> Option<Vec<&str>> {
    let mut texts = Vec::new();
    for field in Fields(message) {
        let (_, Field { number, value }) = field?;
        if let Value::Bytes(text) = value
            && number == wanted
        {
            texts.push(std::str::from_utf8(text).ok()?);
        }
    }
    Some(texts)
}

fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
