//! Which nodes go over, and that a network says the same with them.

use super::*;
use crate::network::session::tests::{as_it_is, rewritten};

const SHIPPED: [&[u8]; 4] = [
    include_bytes!("../../../models/foreground/model.onnx"),
    include_bytes!("../../../models/foreground/refinement.onnx"),
    include_bytes!("../../../models/anonymization-area/model.onnx"),
    include_bytes!("../../../models/anonymization-area/refinement.onnx"),
];

/// How many nodes of a model are of one operator.
fn count(model: &[u8], operator: &str) -> usize {
    let all = Fields(model)
        .flatten()
        .filter(|(_, field)| field.number == 7);
    let graphs = all.filter_map(|(_, field)| message(field));
    let nodes = graphs.flat_map(|graph| Fields(graph).flatten());
    let nodes = nodes.filter(|(_, field)| field.number == 1);
    let nodes = nodes.filter_map(|(_, field)| message(field));
    nodes
        .filter(|node| texts(node, 4) == Some(vec![operator]))
        .count()
}

fn message(field: Field<'_>) -> Option<&[u8]> {
    match field.value {
        Value::Bytes(bytes) => Some(bytes),
        Value::Number(_) => None,
    }
}

#[test]
fn every_large_convolution_of_a_shipped_network_is_ours_with_its_norm() {
    for model in SHIPPED {
        let found = with_our_operators(model).unwrap();
        let norms = count(model, "LayerNormalization");
        // The last convolution has none.
        assert_eq!(count(&found, Convolve::NAME), norms + 1);
        assert_eq!(count(&found, "LayerNormalization"), 0);
        assert_eq!(count(model, "Conv") - count(&found, "Conv"), norms + 1);
        assert!(count(&found, "Relu") < count(model, "Relu"));
        // Cells to blocks; blocks to cells are followed by no convolution.
        assert_eq!(count(&found, Turn::NAME), 1);
        // Once more, there is nothing left.
        assert!(with_our_operators(&found).is_none());
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
    assert!(with_our_operators(b"Dear Sir or Madam").is_none());
    assert!(with_our_operators(&[]).is_none());
    let small = include_bytes!("../../../tests/data/models/foreground/model.onnx");
    assert!(with_our_operators(small).is_none());
    let cut = &SHIPPED[0][..SHIPPED[0].len() / 2];
    assert!(with_our_operators(cut).is_none());
}

/// A message out of fields that hold bytes.
fn of(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    fields
        .iter()
        .for_each(|(number, bytes)| put_bytes(&mut out, *number, bytes));
    out
}

/// An attribute of numbers, or of one.
fn attribute(name: &str, numbers: &[u64], one: bool) -> Vec<u8> {
    let mut out = of(&[(1, name.as_bytes())]);
    numbers
        .iter()
        .for_each(|n| put_number(&mut out, if one { 3 } else { 8 }, *n));
    out
}

fn tensor(name: &str, shape: &[u64]) -> Vec<u8> {
    let mut out = of(&[(8, name.as_bytes())]);
    put_number(&mut out, 2, FLOAT);
    shape.iter().for_each(|n| put_number(&mut out, 1, *n));
    out
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs = inputs.iter().map(|name| (1, name.as_bytes()));
    let parts: Vec<(u64, &[u8])> = inputs
        .chain([(2, output.as_bytes()), (4, operator.as_bytes())])
        .chain(attributes.iter().map(|attribute| (5, attribute.as_slice())))
        .collect();
    of(&parts)
}

/// A model of one convolution of `x`, with what may be changed about it, then `after` it.
fn model(attributes: &[Vec<u8>], weights: &[u64], after: &[Vec<u8>], outputs: &[&str]) -> Vec<u8> {
    let mut all = vec![attribute("pads", &[1; 6], false)];
    all.retain(|_| !attributes.iter().any(|a| texts(a, 1) == Some(vec!["pads"])));
    all.extend_from_slice(attributes);
    let convolution = node("Conv", &["x", "w", "b"], "y", &all);
    let vectors = ["b", "scale", "shift"].map(|name| tensor(name, &weights[..1]));
    let weights = tensor("w", weights);
    let outputs: Vec<_> = outputs
        .iter()
        .map(|name| of(&[(1, name.as_bytes())]))
        .collect();
    let mut graph = vec![(1, convolution.as_slice()), (5, weights.as_slice())];
    graph.extend(vectors.iter().map(|vector| (5, vector.as_slice())));
    graph.extend(after.iter().map(|node| (1, node.as_slice())));
    graph.extend(outputs.iter().map(|output| (12, output.as_slice())));
    of(&[(7, &of(&graph))])
}

const WEIGHTS: [u64; 5] = [4, 8, 3, 3, 3];

#[test]
fn a_convolution_of_another_sort_stays() {
    let ours = |attributes: &[Vec<u8>], weights: &[u64]| {
        let model = model(attributes, weights, &[], &["y"]);
        with_our_operators(&model).is_some_and(|found| count(&found, Convolve::NAME) == 1)
    };
    assert!(ours(&[], &WEIGHTS));
    assert!(ours(
        &[
            attribute("strides", &[1; 3], false),
            attribute("group", &[1], true)
        ],
        &WEIGHTS
    ));
    for other in [
        attribute("strides", &[2, 1, 1], false),
        attribute("dilations", &[1, 1, 2], false),
        attribute("pads", &[1, 1, 1, 1, 1, 0], false),
        attribute("group", &[2], true),
        of(&[(1, b"auto_pad"), (4, b"SAME_UPPER")]),
        of(&[(1, b"body"), (6, b"")]),
    ] {
        assert!(!ours(&[other], &WEIGHTS));
    }
    for weights in [
        [4, 8, 3, 3, 1],
        [0, 8, 3, 3, 3],
        [4, 7, 3, 3, 3],
        [129, 128, 3, 3, 3],
    ] {
        assert!(!ours(&[], &weights));
    }
}

#[test]
fn only_what_follows_on_a_convolution_alone_goes_with_it() {
    let turned =
        |order, from, to| node("Transpose", &[from], to, &[attribute("perm", order, false)]);
    let after = |axis: u64| {
        let norm = node(
            "LayerNormalization",
            &["t", "scale", "shift"],
            "n",
            &[attribute("axis", &[axis], true)],
        );
        let there = turned(&CHANNELS_LAST, "y", "t");
        [
            there,
            norm,
            turned(&CHANNELS_FIRST, "n", "u"),
            node("Relu", &["u"], "z", &[]),
        ]
    };
    let left = |after: &[Vec<u8>], outputs: &[&str]| {
        let found = with_our_operators(&model(&[], &WEIGHTS, after, outputs)).unwrap();
        ["Conv", "Transpose", "LayerNormalization", "Relu"].map(|name| count(&found, name))
    };
    assert_eq!(left(&after(4), &["z"]), [0, 0, 0, 0]);
    // Another axis; an output that is asked for, or used, as well.
    assert_eq!(left(&after(3), &["z"]), [0, 2, 1, 1]);
    assert_eq!(left(&after(4), &["z", "y"]), [0, 2, 1, 1]);
    assert_eq!(left(&after(4), &["z", "u"]), [0, 0, 0, 1]);
    let twice = [&after(4)[..], &[node("Relu", &["y"], "v", &[])]].concat();
    assert_eq!(left(&twice, &["z", "v"]), [0, 2, 1, 2]);
    // What else a model says stays, and it is not rewritten twice.
    let found = with_our_operators(&model(&[], &WEIGHTS, &after(4), &["z"])).unwrap();
    assert!(with_our_operators(&found).is_none());
}

/// An input or output of floats with five axes of any length.
fn typed(name: &str) -> Vec<u8> {
    let axis = of(&[(2, b"n")]);
    let mut tensor = Vec::new();
    put_number(&mut tensor, 1, FLOAT);
    put_bytes(&mut tensor, 2, &of(&[(1, axis.as_slice()); 5]));
    of(&[(1, name.as_bytes()), (2, &of(&[(1, &tensor)]))])
}

fn filled(name: &str, shape: &[u64]) -> Vec<u8> {
    let count = shape.iter().product::<u64>() as usize;
    let values = (0..count).flat_map(|n| ((n as f32 * 1.7).sin()).to_le_bytes());
    let mut out = tensor(name, shape);
    put_bytes(&mut out, 9, &values.collect::<Vec<u8>>());
    out
}

#[test]
fn several_tensors_at_once_and_a_bias_come_out_as_from_onnx_runtime() {
    // ONNX Runtime wants to know an attribute's type.
    let mut pads = attribute("pads", &[1; 6], false);
    put_number(&mut pads, 20, 7);
    let convolution = node("Conv", &["x", "w", "b"], "y", &[pads]);
    let relu = node("Relu", &["y"], "logits", &[]);
    let (weights, bias) = (filled("w", &WEIGHTS), filled("b", &WEIGHTS[..1]));
    let (input, output) = (typed("x"), typed("logits"));
    let graph = of(&[
        (1, &convolution),
        (1, &relu),
        (2, b"g"),
        (5, &weights),
        (5, &bias),
        (11, &input),
        (12, &output),
    ]);
    let mut model = Vec::new();
    put_number(&mut model, 1, 8);
    put_bytes(&mut model, 7, &graph);
    let mut set = Vec::new();
    put_number(&mut set, 2, 17);
    put_bytes(&mut model, 8, &set);
    assert!(with_our_operators(&model).is_some());
    let shape = [2, 8, 5, 9, 11];
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|n: usize| (n as f32 * 0.37).cos())
        .collect();
    let (expected, found) = (
        as_it_is(&model, &shape, &values),
        rewritten(&model, &shape, &values),
    );
    assert_eq!(expected.len(), 2 * 4 * 5 * 9 * 11);
    assert!(expected.contains(&0.0) && expected.iter().any(|v| *v > 1.0));
    let apart = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-4);
}

/// Cells to blocks of two along each axis, and a convolution of these.
fn blocks(
    order: &[u64],
    turned: &str,
    weights: &str,
    more: &[Vec<u8>],
    outputs: &[&str],
) -> Vec<u8> {
    let shape = |name: &str, numbers: &[i64]| {
        let mut out = of(&[(8, name.as_bytes())]);
        put_number(&mut out, 1, numbers.len() as u64);
        put_number(&mut out, 2, 7);
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        put_bytes(&mut out, 9, &bytes);
        out
    };
    let typed_numbers = |name: &str, numbers: &[u64]| {
        let mut out = attribute(name, numbers, false);
        put_number(&mut out, 20, 7);
        out
    };
    let nodes = [
        node("Reshape", &["x", "apart"], "a", &[]),
        node("Transpose", &["a"], "t", &[typed_numbers("perm", order)]),
        node("Reshape", &[turned, "together"], "r", &[]),
        node("Conv", &["r", weights], "logits", &[]),
    ];
    let (apart, together) = (
        shape("apart", &[1, 2, 3, 2, 4, 2, 5, 2]),
        shape("together", &[1, 16, 3, 4, 5]),
    );
    let weights = filled("w", &[3, 16, 1, 1, 1]);
    let input = typed("x");
    let outputs: Vec<Vec<u8>> = outputs.iter().map(|name| typed(name)).collect();
    let mut graph: Vec<(u64, &[u8])> = vec![(2, b"g"), (5, &apart), (5, &together), (5, &weights)];
    graph.extend(nodes.iter().chain(more).map(|node| (1, node.as_slice())));
    graph.push((11, &input));
    graph.extend(outputs.iter().map(|output| (12, output.as_slice())));
    let mut model = Vec::new();
    put_number(&mut model, 1, 8);
    put_bytes(&mut model, 7, &of(&graph));
    let mut set = Vec::new();
    put_number(&mut set, 2, 17);
    put_bytes(&mut model, 8, &set);
    model
}

const TO_BLOCKS: [u64; 8] = [0, 1, 3, 5, 7, 2, 4, 6];

#[test]
fn what_turns_cells_into_blocks_is_ours_and_gives_the_same() {
    let model = blocks(&TO_BLOCKS, "t", "w", &[], &["logits"]);
    assert_eq!(count(&with_our_operators(&model).unwrap(), Turn::NAME), 1);
    let shape = [1, 2, 6, 8, 10];
    let values: Vec<f32> = (0..960).map(|n| (n as f32 * 0.37).cos()).collect();
    let expected = as_it_is(&model, &shape, &values);
    assert_eq!(expected.len(), 180);
    assert!(expected == rewritten(&model, &shape, &values));
}

#[test]
fn another_transposition_stays() {
    let stays = |model: Vec<u8>| with_our_operators(&model).is_none();
    let all = ["logits"];
    let used = node("Neg", &["t"], "n", &[]);
    assert!(stays(blocks(&[0, 2, 3, 4, 1], "t", "w", &[], &all)));
    assert!(stays(blocks(
        &[0, 1, 3, 5, 7, 2, 4, 4],
        "t",
        "w",
        &[],
        &all
    )));
    // Used by another, or asked for; not what is shaped; what is convolved with something that is made.
    assert!(stays(blocks(&TO_BLOCKS, "t", "w", &[used], &all)));
    assert!(stays(blocks(&TO_BLOCKS, "t", "w", &[], &["logits", "t"])));
    assert!(stays(blocks(&TO_BLOCKS, "a", "w", &[], &all)));
    assert!(stays(blocks(&TO_BLOCKS, "t", "made", &[], &all)));
}
