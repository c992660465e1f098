//! What a network costs under encryption, before anything is computed: parameters, noise, sizes and time.
//!
//! ```text
//! cargo run --release -p cryptodl --example plan_and_explain [NETWORK]
//! ```

use cryptodl::{Model, PlanOptions, Tolerance, Watch};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "mnist-1".into());
    let model = Model::load(&name)?;
    println!("{}", model.plan(&PlanOptions::default(), Watch::default())?.report);

    // More labels may change: fewer or smaller primes.
    let options = PlanOptions { tolerance: Some(Tolerance::new(0.01)?), ..PlanOptions::default() };
    let report = model.plan(&options, Watch::default())?.report;
    println!("with a tolerance of 1 %: {} limbs, {:.1} MB", report.params.limbs, report.bytes.upload as f64 / 1e6);
    Ok(())
}
