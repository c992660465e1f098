//! `cryptodl inspect`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use cryptodl_core::ckks::SpecError;
use cryptodl_core::wire::{Contents, Identity, VERSION, identify};
use cryptodl_network::text::one_line;
use cryptodl_program::{Program, Salt};
use serde_json::{Value, json};

use crate::files;
use crate::json::{Json, Timed};
use crate::terminal::wrapped;

/// Say what a file is: a key, ciphertexts, a result, a client spec, a saved Program or a model
///
/// The file is read to its end and its checksum is checked, and so are the limits that hold for every
/// Program. A client spec is checked as `keygen` would. What other commands would refuse is a failure
/// (exit code 1). Whether a key or ciphertexts belong to a Program shows only where they are used. A
/// model description is read with its weights and its calibration; whether it can be planned, and at
/// what cost, says `cryptodl plan`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cryptodl inspect keys/public/client.spec
  cryptodl inspect scores.ct --json -")]
pub struct Inspect {
    /// A file that this program wrote, or a model description (.toml)
    file: PathBuf,
    #[command(flatten)]
    json: Json,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let is_model = self.file.extension().is_some_and(|extension| extension == "toml");
        let (facts, check) = if is_model { (model(&self.file)?, Ok(())) } else { container(&self.file)? };
        self.json.create()?.show(&Timed::since(start, "read", &facts), || table(&facts))?;
        check.with_context(|| self.file.display().to_string())
    }
}

/// The facts, and why other commands would refuse the file.
fn container(path: &Path) -> Result<(Value, Result<(), SpecError>)> {
    let Identity { header, contents } = files::read(path, identify)?;
    let mut facts = json!({
        "kind": header.kind.name(),
        "version": VERSION,
        "bytes": header.file_len(),
        "program": (!header.kind.is_key()).then_some(header.program),
        "params_digest": header.params,
    });
    let mut refused = Ok(());
    let more = match contents {
        Contents::SecretKey => json!({ "warning": "this file decrypts everything: keep it to yourself" }),
        Contents::PublicKey => json!({}),
        Contents::Program => {
            let program = files::read(path, Program::read)?;
            let spec = program.client_spec();
            json!({
                "model": spec.model,
                "class_names": spec.class_names,
                "salted": program.content.salt != Salt::default(),
                "encryption": spec.encryption,
                "tolerance": program.content.tolerance,
                "params": spec.params,
                "evaluation_keys": spec.evaluation_keys,
                "input": spec.input,
                "output": spec.output,
                "steps": program.names,
            })
        }
        Contents::EvalKeys { first: None, .. } => json!({ "contents": "empty: for Programs that switch no keys" }),
        Contents::EvalKeys { count, first } => json!({ "evaluation_keys": count, "first_key": first }),
        Contents::Ciphertexts(header) => json!({
            "level": header.level,
            "values": header.values,
            "components": header.components,
            "packing": if header.leaves.is_spread() { "spread" } else { "compact" },
            "pixels_per_ciphertext": 1u64 << header.leaves.log,
            "first_set": header.first_set,
            "sets": header.sets,
            "images": header.images,
            "seeded": header.seed.is_some(),
        }),
        Contents::ClientSpec(spec) => {
            refused = spec.clone().check().map(drop);
            json!({
                "check": refused.as_ref().map_or_else(|error| format!("refused: {error}"), |()| "passed".into()),
                "model": spec.model,
                "class_names": spec.class_names,
                "encryption": spec.encryption,
                "params": spec.params,
                "evaluation_keys": spec.evaluation_keys,
                "input": spec.input,
                "output": spec.output,
            })
        }
    };
    extend(&mut facts, more);
    Ok((facts, refused))
}

fn model(path: &Path) -> Result<Value> {
    let network = cryptodl_zoo::load_file(path)?;
    let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    let layers: Vec<Value> = network
        .outputs()
        .map(|(layer, output)| {
            json!({
                "name": layer.name,
                "kind": layer.op.kind(),
                "output": output.to_string(),
                "multiply_adds": layer.op.multiply_adds(output.len()),
            })
        })
        .collect();
    Ok(json!({
        "kind": "model",
        "bytes": bytes,
        "name": network.name,
        "title": network.title,
        "dataset": network.dataset.map(|id| id.name()),
        "input": { "shape": network.input.shape, "range": network.input.range },
        "classes": network.classes(),
        "class_names": network.class_names,
        "accuracy": network.accuracy.map(|accuracy| accuracy.share()),
        "multiply_adds": network.multiply_adds(),
        "digest": network.digest().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "layers": layers,
    }))
}

fn extend(facts: &mut Value, more: Value) {
    if let (Value::Object(facts), Value::Object(more)) = (facts, more) {
        facts.extend(more);
    }
}

/// Columns of a table.
const WIDTH: usize = 100;

/// One fact per line.
fn table(facts: &Value) -> String {
    let mut text = String::new();
    for (name, value) in facts.as_object().into_iter().flatten() {
        match value {
            Value::String(value) => writeln!(text, "{name:<14} {}", one_line(value)),
            Value::Array(rows) if rows.iter().any(Value::is_object) => writeln!(text, "{name}")
                .and_then(|()| rows.iter().try_for_each(|row| writeln!(text, "  {}", line(row)))),
            value => writeln!(text, "{}", wrapped(&format!("{name:<14} {}", line(value)), WIDTH, &" ".repeat(15))),
        }
        .expect("a string takes everything");
    }
    text
}

/// A value on one line.
fn line(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(value) => one_line(value),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name} {}", line(value))).collect::<Vec<_>>().join(", ")
        }
        Value::Array(values) => format!("[{}]", values.iter().map(line).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}
