//! The messages of an ONNX model that a rewrite reads and writes.

use std::collections::{HashMap, HashSet};

use crate::network::onnx::{Field, Value};

/// More nodes than any network has.
const MOST_NODES: usize = 1 << 17;
/// Data types of tensors.
pub(super) const FLOAT: u64 = 1;
const HALF: u64 = 10;

/// The fields of a message, each with the bytes that it was read from; `None` ends what cannot be read.
pub(super) struct Fields<'a>(pub &'a [u8]);

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
pub(super) fn others((message, number): (&[u8], u64)) -> impl Iterator<Item = (&[u8], Field<'_>)> {
    let fields = Fields(message).flatten();
    fields.filter(move |(_, field)| field.number != number)
}

/// A graph's nodes and its tensors' shapes.
pub(super) struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    /// Names and shapes of the tensors that are part of the model, as they are or widened.
    pub constants: HashMap<&'a str, Vec<u64>>,
    /// Names that are asked for.
    pub outputs: HashSet<&'a str>,
}

pub(super) struct Node<'a> {
    pub raw: &'a [u8],
    pub inputs: Vec<&'a str>,
    pub outputs: Vec<&'a str>,
    pub operator: &'a str,
    pub attributes: HashMap<&'a str, Attribute>,
}

#[derive(Default)]
pub(super) struct Attribute {
    pub float: Option<f32>,
    pub number: Option<u64>,
    pub numbers: Vec<u64>,
    pub text: bool,
}

impl<'a> Graph<'a> {
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
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

    /// Whether a tensor that is part of the model holds so many numbers in a row.
    pub fn is_vector(&self, name: &str, length: u64) -> bool {
        self.constants
            .get(name)
            .is_some_and(|shape| *shape == [length])
    }
}

impl<'a> Node<'a> {
    /// Reads a node's message; `raw`: the field that holds it.
    pub fn read(raw: &'a [u8], message: &'a [u8]) -> Option<Self> {
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

    pub fn number(&self, name: &str, otherwise: u64) -> u64 {
        let attribute = self.attributes.get(name);
        attribute.and_then(|a| a.number).unwrap_or(otherwise)
    }

    pub fn numbers(&self, name: &str) -> &[u64] {
        self.attributes.get(name).map_or(&[], |a| &a.numbers)
    }

    /// Whether a convolution has stride 1 and a zero around its input.
    pub fn is_plain(&self) -> bool {
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
pub(super) fn texts(message: &[u8], wanted: u64) -> Option<Vec<&str>> {
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

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_number(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
