//! A look into an ONNX file before ONNX Runtime gets it: whether its tensors lie in the file itself.
//!
//! A tensor may name another file that holds its values, by any path. Weights are one file, known by its
//! digest, so such a model is refused; ONNX Runtime would read that file.
//!
//! # Source
//! `onnx.proto` of ONNX 1.19 (messages and field numbers); the wire format of Protocol Buffers.

/// Messages that hold tensors, or messages that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
    Training,
}

/// Deeper than any network nests its graphs, and far from the end of the stack.
const DEEPEST: usize = 64;

impl Message {
    /// What a field of this message is, if it is to be looked into.
    fn field(self, number: u64) -> Option<Self> {
        use Message::{Attribute, Function, Graph, Model, Node, SparseTensor, Tensor, Training};
        Some(match (self, number) {
            (Model, 7) => Graph,
            (Model, 20) => Training,
            (Model, 25) => Function,
            (Training, 1 | 2) => Graph,
            (Graph, 1) | (Function, 7) => Node,
            (Graph, 5) => Tensor,
            (Graph, 15) => SparseTensor,
            (Node, 5) | (Function, 11) => Attribute,
            (Attribute, 5 | 10) => Tensor,
            (Attribute, 6 | 11) => Graph,
            (Attribute, 22 | 23) | (Function, 12) => SparseTensor,
            (SparseTensor, 1 | 2) => Tensor,
            _ => return None,
        })
    }
}

/// Checks that a model holds all its tensors.
///
/// # Errors
/// A line that says why it does not, or that it is no ONNX file.
pub fn check_self_contained(model: &[u8]) -> Result<(), String> {
    look(Message::Model, model, 0)
}

fn look(message: Message, bytes: &[u8], depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("its graphs are nested too deeply".to_owned());
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let field = Field::read(&mut rest).ok_or("it is no ONNX file")?;
        match (message, field.number, &field.value) {
            // `external_data`, and `data_location` unless that is DEFAULT.
            (Message::Tensor, 13, _) => return Err(external()),
            (Message::Tensor, 14, Value::Number(1..)) => return Err(external()),
            (_, number, Value::Bytes(inner)) => {
                if let Some(inside) = message.field(number) {
                    look(inside, inner, depth + 1)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn external() -> String {
    "it keeps values in another file; store them in the model itself".to_owned()
}

/// A field of a message.
pub(super) struct Field<'a> {
    /// Which one.
    pub number: u64,
    /// What it holds.
    pub value: Value<'a>,
}

/// What a field holds.
pub(super) enum Value<'a> {
    /// A number of varying length.
    Number(u64),
    /// Bytes, a text, a message, packed numbers, or a number of four or eight bytes.
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// Adds what a field of repeated numbers holds, one or packed; `None` where it is no such.
    pub fn add_numbers(&self, to: &mut Vec<u64>) -> Option<()> {
        match self {
            Self::Number(number) => to.push(*number),
            Self::Bytes(packed) => {
                let mut rest = *packed;
                while !rest.is_empty() {
                    to.push(varint(&mut rest)?);
                }
            }
        }
        Some(())
    }
}

impl<'a> Field<'a> {
    /// Takes the next field off a message.
    pub fn read(rest: &mut &'a [u8]) -> Option<Self> {
        let key = varint(rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(rest)?),
            1 => Value::Bytes(take(rest, 8)?),
            2 => {
                let length = varint(rest)?;
                Value::Bytes(take(rest, length)?)
            }
            5 => Value::Bytes(take(rest, 4)?),
            _ => return None,
        };
        let number = key >> 3;
        (number > 0).then_some(Self { number, value })
    }
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that holds bytes, shorter than 128.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        // Numbers above 15 take two bytes.
        let mut field = match number {
            ..16 => vec![number << 3 | 2],
            _ => vec![(number << 3 | 2) | 0x80, number >> 4],
        };
        field.push(length);
        field.extend(bytes);
        field
    }

    #[test]
    fn networks_that_hold_their_weights_are_taken() {
        for model in [
            &include_bytes!("../../models/foreground/model.onnx")[..],
            include_bytes!("../../models/anonymization-area/model.onnx"),
            include_bytes!("../../tests/data/models/foreground/model.onnx"),
        ] {
            assert_eq!(check_self_contained(model), Ok(()));
        }
    }

    #[test]
    fn a_tensor_in_another_file_is_found_wherever_it_is() {
        // data_location = EXTERNAL; external_data with a key and a value.
        let entry = [field(1, b"location"), field(2, b"../../secret")].concat();
        for tensor in [vec![14 << 3, 1], field(13, &entry)] {
            let attribute = field(5, &tensor);
            let inner = field(1, &field(5, &attribute));
            for model in [
                field(7, &field(5, &tensor)),
                field(7, &field(1, &field(5, &attribute))),
                field(7, &field(1, &field(5, &field(6, &inner)))),
                field(7, &field(15, &field(1, &tensor))),
                field(25, &field(7, &field(5, &attribute))),
                field(20, &field(1, &field(5, &tensor))),
            ] {
                let why = check_self_contained(&model).unwrap_err();
                assert!(why.contains("another file"), "{why}");
            }
        }
        assert_eq!(
            check_self_contained(&field(7, &field(5, &[14 << 3, 0]))),
            Ok(())
        );
    }

    #[test]
    fn what_is_no_model_is_refused_without_going_deep() {
        for bytes in [
            &b"Dear Sir or Madam"[..],
            &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff; 30],
        ] {
            assert!(check_self_contained(bytes).is_err());
        }
        let mut model = Vec::new();
        for _ in 0..30 {
            model = field(1, &field(5, &field(6, &model)));
            model.truncate(120);
        }
        assert!(check_self_contained(&field(7, &model)).is_err());
    }
}
