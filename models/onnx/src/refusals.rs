//! What to do instead of operators that have no place in an encrypted network.

/// Activations that are no polynomials.
const ACTIVATIONS: [&str; 25] = [
    "Relu",
    "LeakyRelu",
    "PRelu",
    "ThresholdedRelu",
    "Elu",
    "Selu",
    "Celu",
    "Gelu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Swish",
    "Mish",
    "Tanh",
    "Softplus",
    "Softsign",
    "Erf",
    "Clip",
    "Abs",
    "Exp",
    "Log",
    "Sqrt",
    "Sign",
    "Sin",
    "Cos",
];

/// Why an operator of computed values is refused, and what to use instead.
pub(crate) fn of(op: &str) -> String {
    match op {
        _ if ACTIVATIONS.contains(&op) => no_polynomial(op),
        "MaxPool" | "GlobalMaxPool" | "LpPool" | "GlobalLpPool" | "ReduceMax" | "ReduceMin" | "Max" | "Min" => {
            "maxima cannot be computed under encryption; use an average pool (AveragePool, GlobalAveragePool) and train again".into()
        }
        "Softmax" | "LogSoftmax" | "Hardmax" => {
            "it is not the last operator; a Softmax at the end is left out, since it changes no label, but no other can be \
             computed under encryption"
                .into()
        }
        "ArgMax" | "TopK" | "ArgMin" => {
            "the client takes the largest score itself; export the network so that the scores are its output".into()
        }
        "If" | "Loop" | "Scan" => {
            "control flow cannot be computed under encryption; export the network with fixed sizes, so that the exporter \
             takes one branch"
                .into()
        }
        "InstanceNormalization" | "LayerNormalization" | "GroupNormalization" | "RMSNormalization" | "LRN"
        | "MeanVarianceNormalization" | "LpNormalization" => {
            "it divides by what it measures of each image, which cannot be computed under encryption; use batch-norm, whose \
             statistics are constants, and train again"
                .into()
        }
        "LSTM" | "GRU" | "RNN" | "Attention" | "MultiHeadAttention" => {
            "recurrent and attention layers are not supported; networks of convolutions, pools, dense layers and polynomial \
             activations are"
                .into()
        }
        "ConvTranspose" | "Resize" | "Upsample" => {
            "it makes images larger, which is not supported; networks that classify have no need of it".into()
        }
        "QLinearConv" | "QLinearMatMul" | "ConvInteger" | "MatMulInteger" | "QuantizeLinear" | "DequantizeLinear" => {
            "quantised operators are not read; export the network before quantisation: weights are rounded while a network \
             is planned"
                .into()
        }
        _ => "this operator is not supported; supported are Conv, Gemm, MatMul, BatchNormalization, AveragePool, \
              GlobalAveragePool, ReduceMean, Add, Sub, Mul, Div, Pow, Neg, Sum, Pad, Concat, Slice, Split, Gather, Reshape, \
              Flatten, Squeeze, Unsqueeze, Transpose, Expand, Tile, Identity, Dropout, Cast, and all arithmetic on constants"
            .into(),
    }
}

/// Why an activation is refused.
pub(crate) fn no_polynomial(op: &str) -> String {
    let reason = match op {
        "Div" => "it divides by a computed value, which is no polynomial",
        "Pow" => "its exponent is computed, which is no polynomial",
        _ => "it is no polynomial, and only polynomials can be computed under encryption",
    };
    format!(
        "{reason}; replace it by a polynomial activation, such as x * x or one of those that `cryptodl approx` finds, and train again"
    )
}
