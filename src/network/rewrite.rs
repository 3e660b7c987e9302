//! A model whose 3×3×3 convolutions are nodes of our own operator.
//!
//! What ONNX Runtime does with a convolution in three dimensions takes four times as many multiplications,
//! and normalising the channels of each voxel takes it two transpositions. A node goes over where it has
//! stride 1 and a zero around its input, and weights that are part of the model; what follows on it alone,
//! channels that are normalised and negative values that are left out, goes with it. All others stay.
//!
//! # Source
//! `onnx.proto` of ONNX 1.19 (messages and field numbers); the wire format of Protocol Buffers.

use std::collections::{HashMap, HashSet};

use super::onnx::{Field, Value};
use super::operator;

/// More weights than this many pairs of channels stay: four times as much is kept for each, and the layers
/// that have more see few voxels.
const MOST_PAIRS: u64 = 128 * 128;
/// Fewer inputs than this stay: there is little to gain.
const LEAST_INPUTS: u64 = 8;
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
    let fields = fields(model)?;
    let mut graphs = fields.iter().filter(|(_, field)| field.number == 7);
    let (
        Some((
            _,
            Field {
                value: Value::Bytes(graph),
                ..
            },
        )),
        None,
    ) = (graphs.next(), graphs.next())
    else {
        return None;
    };
    let graph = Graph::read(graph)?.rewritten()?;
    let mut out = Vec::with_capacity(model.len());
    for (raw, field) in &fields {
        match field.number {
            7 => put_bytes(&mut out, 7, &graph),
            _ => out.extend_from_slice(raw),
        }
    }
    let mut set = Vec::new();
    put_bytes(&mut set, 1, operator::DOMAIN.as_bytes());
    put_number(&mut set, 2, 1);
    put_bytes(&mut out, 8, &set);
    Some(out)
}

/// All fields of a message, each with the bytes that it was read from.
fn fields(mut bytes: &[u8]) -> Option<Vec<(&[u8], Field<'_>)>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let before = bytes;
        let field = Field::read(&mut bytes)?;
        fields.push((&before[..before.len() - bytes.len()], field));
    }
    Some(fields)
}

/// A graph's nodes, its tensors' shapes and all else.
struct Graph<'a> {
    nodes: Vec<Node<'a>>,
    /// Names and shapes of the tensors that are part of the model, as they are or widened.
    constants: HashMap<&'a str, Vec<u64>>,
    /// Names that are asked for.
    outputs: HashSet<&'a str>,
    rest: Vec<&'a [u8]>,
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
            rest: Vec::new(),
        };
        let mut half = HashMap::new();
        for (raw, field) in fields(bytes)? {
            match (field.number, field.value) {
                (1, Value::Bytes(node)) => {
                    graph.nodes.push(Node::read(node)?);
                    continue;
                }
                (5, Value::Bytes(tensor)) => {
                    let (name, kind, shape) = read_tensor(tensor)?;
                    match kind {
                        FLOAT => graph.constants.insert(name, shape),
                        HALF => half.insert(name, shape),
                        _ => None,
                    };
                }
                (12, Value::Bytes(output)) => {
                    let name = fields_of(output, 1).next()?;
                    graph.outputs.insert(name);
                }
                _ => {}
            }
            graph.rest.push(raw);
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

    /// The graph's message with nodes of ours; `None` where there are none.
    fn rewritten(&self) -> Option<Vec<u8>> {
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
        let mut out = Vec::new();
        for (n, node) in self.nodes.iter().enumerate() {
            if let Some(found) = ours.get(&n) {
                put_bytes(&mut out, 1, &found.node());
            } else if !gone.contains(&n) {
                put_bytes(&mut out, 1, node.raw);
            }
        }
        self.rest.iter().for_each(|raw| out.extend_from_slice(raw));
        Some(out)
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
        if inputs < LEAST_INPUTS || outputs.checked_mul(inputs)? > MOST_PAIRS {
            return None;
        }
        let bias = node.inputs.get(2).filter(|name| !name.is_empty());
        if bias.is_some_and(|name| !self.constants.contains_key(name)) {
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
        self.take_norm(&mut found, next);
        if let Some(n) = next(found.output) {
            let node = &self.nodes[n];
            if node.operator == "Relu" {
                (found.output, found.relu) = (node.outputs.first()?, true);
                found.nodes.push(n);
            }
        }
        Some(found)
    }

    /// Takes what normalises the channels of each voxel, if that follows.
    fn take_norm(&self, found: &mut Found<'a>, next: impl Fn(&str) -> Option<usize>) -> Option<()> {
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
        let known = |name: &str| {
            self.constants
                .get(name)
                .is_some_and(|shape| shape.len() == 1)
        };
        if !last || node.outputs.len() > 1 || !known(scale) || !known(shift) {
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
    fn read(raw: &'a [u8]) -> Option<Self> {
        let mut node = Self {
            raw,
            inputs: fields_of(raw, 1).collect(),
            outputs: fields_of(raw, 2).collect(),
            operator: fields_of(raw, 4).last().unwrap_or_default(),
            attributes: HashMap::new(),
        };
        if fields_of(raw, 7).any(|domain| !domain.is_empty() && domain != "ai.onnx") {
            node.operator = "";
        }
        for (_, field) in fields(raw)? {
            if let (5, Value::Bytes(bytes)) = (field.number, field.value) {
                let (name, attribute) = Attribute::read(bytes)?;
                node.attributes.insert(name, attribute);
            }
        }
        Some(node)
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
        for (_, field) in fields(bytes)? {
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
    for (_, field) in fields(bytes)? {
        match (field.number, field.value) {
            (1, value) => value.add_numbers(&mut shape)?,
            (2, Value::Number(number)) => kind = number,
            (8, Value::Bytes(text)) => name = std::str::from_utf8(text).ok()?,
            _ => {}
        }
    }
    Some((name, kind, shape))
}

/// The texts in the fields of a number, as far as a message can be read.
fn fields_of(bytes: &[u8], number: u64) -> impl Iterator<Item = &str> {
    let fields = fields(bytes).unwrap_or_default().into_iter();
    fields.filter_map(move |(_, field)| match field.value {
        Value::Bytes(text) if field.number == number => std::str::from_utf8(text).ok(),
        _ => None,
    })
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
mod tests {
    use super::*;
    use crate::network::session::tests::{as_it_is, rewritten};

    const SHIPPED: [&[u8]; 4] = [
        include_bytes!("../../models/foreground/model.onnx"),
        include_bytes!("../../models/foreground/refinement.onnx"),
        include_bytes!("../../models/anonymization-area/model.onnx"),
        include_bytes!("../../models/anonymization-area/refinement.onnx"),
    ];

    /// The nodes of a model of one operator.
    fn count(model: &[u8], operator: &str) -> usize {
        let graph = fields(model).unwrap().into_iter();
        let graph = graph.filter(|(_, field)| field.number == 7);
        let nodes = graph.flat_map(|(_, field)| match field.value {
            Value::Bytes(graph) => fields(graph).unwrap(),
            Value::Number(_) => unreachable!(),
        });
        let is = |field: &Field| match field.value {
            Value::Bytes(node) if field.number == 1 => fields_of(node, 4).eq([operator]),
            _ => false,
        };
        nodes.filter(|(_, field)| is(field)).count()
    }

    #[test]
    fn every_large_convolution_of_a_shipped_network_is_ours_with_its_norm() {
        for model in SHIPPED {
            let found = with_our_convolutions(model).unwrap();
            let norms = count(model, "LayerNormalization");
            // The last convolution has none.
            assert_eq!(count(&found, operator::NAME), norms + 1);
            assert_eq!(count(&found, "LayerNormalization"), 0);
            assert_eq!(count(model, "Conv") - count(&found, "Conv"), norms + 1);
            assert!(count(&found, "Relu") < count(model, "Relu"));
            // Once more, there is nothing left.
            assert!(with_our_convolutions(&found).is_none());
        }
    }

    #[test]
    fn a_network_says_the_same_with_them() {
        for (model, channels) in SHIPPED.into_iter().zip([6, 7, 7, 8]) {
            let shape = [1, channels, 16, 48, 32];
            let wave = |n: usize| (n as f32 * 0.7).sin().abs() * (n as f32 * 0.013).cos().abs();
            let values: Vec<f32> = (0..shape.iter().product()).map(wave).collect();
            let (expected, found) = (
                as_it_is(model, &shape, &values),
                rewritten(model, &shape, &values),
            );
            let apart = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
            let largest = expected
                .iter()
                .fold(0.0_f32, |most, logit| most.max(logit.abs()));
            assert!(largest > 1.0 && apart.fold(0.0, f32::max) < 2e-3);
        }
    }

    #[test]
    fn what_is_no_model_or_has_nothing_for_us_stays_as_it_is() {
        assert!(with_our_convolutions(b"Dear Sir or Madam").is_none());
        assert!(with_our_convolutions(&[]).is_none());
        let small = include_bytes!("../../tests/data/models/foreground/model.onnx");
        assert!(with_our_convolutions(small).is_none());
        let cut = &SHIPPED[0][..SHIPPED[0].len() / 2];
        assert!(with_our_convolutions(cut).is_none());
    }
}
