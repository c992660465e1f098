//! Small graphs, made here message by message.

mod graphs;
mod hostile;

use cryptodl_network::Network;
use prost::Message;

use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::{ImportError, ImportOptions, Imported, import_bytes};

/// A graph whose input is `x` and whose output is `y`.
#[derive(Clone)]
struct Graph {
    graph: GraphProto,
    opset: i64,
}

impl Graph {
    fn new(input: &[i64]) -> Self {
        let graph = GraphProto { input: vec![info("x", input)], output: vec![info("y", &[])], ..Default::default() };
        Self { graph, opset: 20 }
    }

    /// A weight whose values are all different, small and exact.
    fn weight(self, name: &str, dims: &[i64]) -> Self {
        let count: i64 = dims.iter().product();
        let values = (0..count).map(|i| ((i * 7 + 3) % 31) as f32 / 32.0 - 0.5).collect();
        self.floats(name, dims, values)
    }

    fn floats(mut self, name: &str, dims: &[i64], values: Vec<f32>) -> Self {
        self.graph.initializer.push(floats(name, dims, values));
        self
    }

    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let dims = vec![values.len() as i64];
        let tensor = TensorProto {
            name: Some(name.into()),
            dims,
            data_type: Some(7),
            int64_data: values.to_vec(),
            ..Default::default()
        };
        self.graph.initializer.push(tensor);
        self
    }

    fn scalar(self, name: &str, value: f32) -> Self {
        self.floats(name, &[], vec![value])
    }

    /// A node, `inputs` and `outputs` separated by blanks.
    fn node(self, op: &str, inputs: &str, outputs: &str) -> Self {
        self.node_with(op, inputs, outputs, vec![])
    }

    fn node_with(mut self, op: &str, inputs: &str, outputs: &str, attribute: Vec<AttributeProto>) -> Self {
        let names = |text: &str| text.split(' ').map(|name| name.replace('_', "")).collect();
        self.graph.node.push(NodeProto {
            name: Some(format!("node {}", self.graph.node.len())),
            op_type: Some(op.into()),
            input: names(inputs),
            output: names(outputs),
            attribute,
            ..Default::default()
        });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(self.opset) }];
        let graph = Some(self.graph.clone());
        ModelProto { ir_version: Some(8), opset_import, graph, ..Default::default() }.encode_to_vec()
    }

    fn import(&self) -> Result<Imported, ImportError> {
        import_bytes(&self.bytes(), &ImportOptions::new("test"))
    }

    fn network(&self) -> Network {
        self.import().unwrap_or_else(|error| panic!("{error}")).network
    }

    fn refused(&self) -> String {
        self.import().expect_err("refused").to_string()
    }
}

fn floats(name: &str, dims: &[i64], values: Vec<f32>) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: values,
        ..Default::default()
    }
}

fn info(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim =
        dims.iter().map(|&size| DimensionProto { dim_value: (size > 0).then_some(size), dim_param: None }).collect();
    let shape = Some(TensorShapeProto { dim });
    let kind = TypeProto { tensor_type: Some(TensorTypeProto { elem_type: Some(1), shape }) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(kind) }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: Some(name.into()), i: Some(value), ..Default::default() }
}

fn list(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: Some(name.into()), ints: values.to_vec(), ..Default::default() }
}

fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { name: Some(name.into()), s: Some(value.into()), ..Default::default() }
}
