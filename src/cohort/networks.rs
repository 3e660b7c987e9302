//! The networks of a cohort: as many copies as workers need at the same time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::config::Config;
use crate::error::Result;
use crate::network::Shipped;
use crate::network::mask::{Choice, MaskNetwork};
use crate::network::windows::WindowCard;
use crate::step::Context;
use crate::volume::Geometry;

/// The networks of both steps.
pub(super) struct Networks {
    /// Those for the foreground.
    pub foreground: Pool,
    /// Those for the anonymization area.
    pub area: Pool,
}

/// Copies of one network: as many as workers needed one at the same time, each loaded once.
pub(super) struct Pool {
    shipped: Shipped,
    choice: Choice,
    context: Context,
    idle: Mutex<Vec<MaskNetwork>>,
    sha256: String,
    /// The figures on its card.
    pub evaluation: Value,
    /// Of a network that sees scans through windows.
    card: Option<WindowCard>,
}

impl Networks {
    /// Loads one of each.
    ///
    /// # Errors
    /// As [`MaskNetwork::load`].
    pub fn load(config: &Config, context: &Context, workers: usize) -> Result<Self> {
        let context = Context {
            threads: (context.threads / workers).max(1),
            ..context.clone()
        };
        let pool = |shipped, choice: Choice| -> Result<Pool> {
            let network = MaskNetwork::load(&choice, shipped, &context)?;
            Ok(Pool {
                shipped,
                choice,
                context: context.clone(),
                sha256: network.used().sha256,
                evaluation: network.evaluation().clone(),
                card: match &network {
                    MaskNetwork::CoarseGrid(_) => None,
                    MaskNetwork::Windows(network) => Some(network.card().clone()),
                },
                idle: Mutex::new(vec![network]),
            })
        };
        Ok(Self {
            foreground: pool(Shipped::FOREGROUND, config.foreground_choice())?,
            area: pool(Shipped::ANONYMIZATION_AREA, config.area_choice())?,
        })
    }

    /// Bytes that networks which see a scan through windows need for it, beside what every network
    /// does; one works after the other.
    pub fn needed(&self, geometry: &Geometry) -> u64 {
        let cards = [&self.foreground.card, &self.area.card];
        let needed = |card: &WindowCard| card.memory_needed(geometry);
        cards.into_iter().flatten().map(needed).max().unwrap_or(0)
    }

    /// SHA-256 of the weights of both.
    pub fn sha256(&self) -> Vec<String> {
        vec![self.foreground.sha256.clone(), self.area.sha256.clone()]
    }
}

impl Pool {
    /// Lends a network; loads one more where all are lent.
    pub fn with<T>(&self, work: impl FnOnce(&mut MaskNetwork) -> Result<T>) -> Result<T> {
        let idle = self.idle().pop();
        let mut network = match idle {
            Some(network) => network,
            None => MaskNetwork::load(&self.choice, self.shipped, &self.context)?,
        };
        let result = work(&mut network);
        self.idle().push(network);
        result
    }

    fn idle(&self) -> MutexGuard<'_, Vec<MaskNetwork>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
