//! The network that makes a mask: the shipped one or that of a folder, of either kind.

use std::path::PathBuf;

use super::folder::AnyCard;
use super::windows::{LabelNetwork, Mirroring};
use super::{Network, NetworkUsed, Shipped};
use crate::error::{Error, Result};
use crate::step::Context;

/// Which network is to make a mask, in the words of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Folder of its card and weights; `None`: the shipped one.
    pub folder: Option<PathBuf>,
    /// Label that is meant, of a network that sees a scan through windows.
    pub label: Option<String>,
    /// Whether such a network is also shown the scan mirrored.
    pub mirroring: Mirroring,
}

/// A network that makes a mask.
pub enum MaskNetwork {
    /// One that sees the whole scan on a coarse grid.
    CoarseGrid(Box<Network>),
    /// A label of one that sees it through windows.
    Windows(Box<LabelNetwork>),
}

impl MaskNetwork {
    /// Loads the network that was chosen.
    ///
    /// # Errors
    /// Exit 69 when its folder, ONNX Runtime or the device cannot be used, or its card is for something
    /// else. Exit 2 when a network that sees scans through windows is chosen without a label that it
    /// knows, or a label or mirroring without such a network.
    pub fn load(choice: &Choice, shipped: Shipped, context: &Context) -> Result<Self> {
        let Some(folder) = &choice.folder else {
            let card = AnyCard::parse(shipped.card, "the shipped network")?;
            return choice.coarse_grid(card, shipped.weights, shipped.name, context);
        };
        let card = AnyCard::of_folder(folder)?;
        let weights = card.read_weights(folder)?;
        match card {
            AnyCard::Windows(card) => {
                let ask = (
                    choice.label.as_deref().unwrap_or_default(),
                    choice.mirroring,
                );
                let network = LabelNetwork::load(*card, &weights, ask, context)?;
                Ok(Self::Windows(Box::new(network)))
            }
            card @ AnyCard::CoarseGrid(_) => {
                let weights: Vec<&[u8]> = weights.iter().map(Vec::as_slice).collect();
                choice.coarse_grid(card, &weights, shipped.name, context)
            }
        }
    }

    /// [`MaskNetwork::load`], and what `read` gives, which is done meanwhile where threads allow it:
    /// `None` unless the shipped network was chosen; another may want its scan read otherwise.
    ///
    /// # Errors
    /// As [`MaskNetwork::load`].
    pub fn load_while<T: Send>(
        read: impl FnOnce() -> T + Send,
        choice: &Choice,
        shipped: Shipped,
        context: &Context,
    ) -> Result<(Self, Option<T>)> {
        let (network, read) = rayon::join(
            || Self::load(choice, shipped, context),
            || choice.is_shipped().then(read),
        );
        Ok((network?, read))
    }

    /// Which network this is, for reports.
    pub fn used(&self) -> NetworkUsed {
        match self {
            Self::CoarseGrid(network) => network.used(),
            Self::Windows(network) => network.used(),
        }
    }

    /// How good it was on subjects that it was not trained on, as its card says.
    pub fn evaluation(&self) -> &serde_json::Value {
        match self {
            Self::CoarseGrid(network) => &network.card.evaluation,
            Self::Windows(network) => &network.card().evaluation,
        }
    }
}

impl Choice {
    /// The shipped network, with nothing asked of it that it does not know.
    fn is_shipped(&self) -> bool {
        self.folder.is_none() && self.label.is_none() && self.mirroring == Mirroring::Off
    }

    fn coarse_grid(
        &self,
        card: AnyCard,
        weights: &[&[u8]],
        purpose: &str,
        context: &Context,
    ) -> Result<MaskNetwork> {
        if self.label.is_some() || self.mirroring == Mirroring::On {
            return Err(Error::Config(
                "a label and mirroring are for networks that see a scan through windows, and none \
                 is named"
                    .to_owned(),
            ));
        }
        let card = card.into_coarse_grid(purpose)?;
        let network = Network::load(card, weights, purpose, context)?;
        Ok(MaskNetwork::CoarseGrid(Box::new(network)))
    }
}
