//! From the folder of a model to its card and its weights: one way for networks of every kind.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::card::{Card, Weights};
use super::windows::WindowCard;
use crate::error::{Error, Result};

/// The two kinds of networks that a card may be for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One that sees the whole scan on a coarse grid: a [`Card`].
    #[default]
    CoarseGrid,
    /// One that sees it through windows: a [`WindowCard`].
    Windows,
}

/// A card of either kind that this runtime can follow.
#[derive(Debug)]
pub enum AnyCard {
    /// Of a network that sees the whole scan on a coarse grid.
    CoarseGrid(Box<Card>),
    /// Of one that sees it through windows.
    Windows(Box<WindowCard>),
}

impl AnyCard {
    /// Reads `card.json`; one that names no kind is for a coarse grid.
    ///
    /// # Errors
    /// Exit 69 when there is none, or none that can be followed.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let path = folder.join("card.json");
        let json = crate::file::read_at_most(&path, LARGEST_CARD)
            .map_err(|e| Error::Unavailable(format!("{}: cannot be read: {e}", path.display())))?;
        Self::parse(&json, &path.display().to_string())
    }

    /// Parses a card and checks that this runtime can follow it.
    ///
    /// # Errors
    /// Exit 69; `origin` names the card in the message.
    pub fn parse(json: &[u8], origin: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            kind: Kind,
        }
        let unusable = |why: &dyn std::fmt::Display| {
            Error::Unavailable(format!("{origin}: no usable model card: {why}"))
        };
        let said: Said = serde_json::from_slice(json).map_err(|e| unusable(&e))?;
        let card = match said.kind {
            Kind::CoarseGrid => serde_json::from_slice(json).map(Self::CoarseGrid),
            Kind::Windows => serde_json::from_slice(json).map(Self::Windows),
        };
        let card = card.map_err(|e| unusable(&e))?;
        card.check()
            .map_err(|why| Error::Unavailable(format!("{origin}: {why}")))?;
        Ok(card)
    }

    /// The card of a network on a coarse grid.
    ///
    /// # Errors
    /// Exit 69 when it is for another kind.
    pub fn into_coarse_grid(self, origin: &str) -> Result<Card> {
        match self {
            Self::CoarseGrid(card) => Ok(*card),
            Self::Windows(_) => Err(Error::Unavailable(format!(
                "{origin}: a network that sees scans through windows does not fit here"
            ))),
        }
    }

    /// The card of a network that sees scans through windows.
    ///
    /// # Errors
    /// Exit 69 when it is for another kind.
    pub fn into_windows(self, origin: &str) -> Result<WindowCard> {
        match self {
            Self::Windows(card) => Ok(*card),
            Self::CoarseGrid(_) => Err(Error::Unavailable(format!(
                "{origin}: a network that sees scans on a coarse grid does not fit here; one that \
                 sees them through windows is wanted"
            ))),
        }
    }

    /// Reads the weights beside the card (one set a fold; a network and its refinement), and compares
    /// each with its digest.
    ///
    /// # Errors
    /// Exit 69 when one is missing or does not fit.
    pub fn read_weights(&self, folder: &Path) -> Result<Vec<Vec<u8>>> {
        let weights = self.weights().into_iter();
        weights.map(|weights| weights.read(folder)).collect()
    }

    fn weights(&self) -> Vec<&Weights> {
        match self {
            Self::CoarseGrid(card) => card.all_weights(),
            Self::Windows(card) => card.weights.iter().collect(),
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        let schema = match self {
            Self::CoarseGrid(card) => &card.schema,
            Self::Windows(card) => &card.schema,
        };
        if schema != "card/1" {
            return Err(format!(
                "a card of layout {schema:?}; this voxmask reads card/1"
            ));
        }
        if self.weights().is_empty() {
            return Err("no weights".to_owned());
        }
        self.weights().into_iter().try_for_each(Weights::check)?;
        match self {
            Self::CoarseGrid(card) => card.check(),
            Self::Windows(card) => card.check(),
        }
    }
}

/// Most bytes of a card.
const LARGEST_CARD: u64 = 1 << 20;
