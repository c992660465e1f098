//! A model that is ready to classify.

use std::time::Instant;

use anyhow::{Context, Result};
use cryptodl_core::ckks::{ClientSpec, Params};
use cryptodl_core::wire::Binding;
use cryptodl_network::Network;
use cryptodl_plan as plan;
use cryptodl_plan::{Plan, PlanOptions};
use cryptodl_program::PrivacyGoal;
use cryptodl_zoo as zoo;

use crate::flags::Execution;
use crate::server::Server;

/// A planned model on its backend. Made once per model.
pub struct Prepared {
    pub network: Network,
    pub plan: Plan,
    pub spec: ClientSpec,
    pub params: Params,
    pub server: Box<dyn Server>,
    /// What it took.
    pub seconds: f64,
}

impl Prepared {
    pub fn new(model: &str, options: &PlanOptions, execution: &Execution) -> Result<Self> {
        let start = Instant::now();
        let (network, plan) = load_and_plan(model, options)?;
        let prepared = Prepared::with_plan(network, plan, execution)?;
        Ok(Prepared { seconds: start.elapsed().as_secs_f64(), ..prepared })
    }

    /// With a plan that is there already.
    pub fn with_plan(network: Network, plan: Plan, execution: &Execution) -> Result<Self> {
        let start = Instant::now();
        let params = plan.program.params()?;
        let server = execution.server(&plan.program, &params)?;
        let spec = plan.program.client_spec();
        Ok(Prepared { network, plan, spec, params, server, seconds: start.elapsed().as_secs_f64() })
    }

    /// What the Program was planned to hide, if anything.
    pub fn circuit_privacy(&self) -> Option<PrivacyGoal> {
        self.plan.program.content.circuit_privacy.map(|privacy| privacy.goal)
    }

    /// What files must belong to.
    pub fn binding(&self) -> Binding<'_> {
        Binding { program: self.spec.program, params: &self.params }
    }
}

/// Loads `model`, a shipped network or a TOML file, and plans it.
pub fn load_and_plan(model: &str, options: &PlanOptions) -> Result<(Network, Plan)> {
    let network = zoo::load(model)?;
    let plan = plan::plan(&network, options).with_context(|| format!("model {model}"))?;
    Ok((network, plan))
}
