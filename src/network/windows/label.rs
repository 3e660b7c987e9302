//! One label of a network that sees a scan through windows, as a mask.

use super::card::{Class, Decision};
use super::{Mirroring, WindowCard, WindowNetwork};
use crate::error::{Error, Result};
use crate::network::NetworkUsed;
use crate::step::Context;
use crate::volume::{Canonical, Geometry, Image, Mask};

/// A network that sees a scan through windows, and the label of it that is meant.
pub struct LabelNetwork {
    network: WindowNetwork,
    /// Place of the label's class among the network's outputs.
    class: usize,
    mirroring: Mirroring,
}

/// Where a label was found.
pub struct Marked {
    /// 1 where a voxel belongs to it.
    pub mask: Mask,
    /// How probable it is, 0 to 1, if that was asked for.
    pub probability: Option<Image>,
}

impl WindowCard {
    /// About how many bytes a scan on this grid needs beside itself: a copy, its values as real numbers
    /// or its labels and mask, the tensor and what is said of it, and a window of both. What the
    /// network's own layers need is not known before it runs.
    pub fn memory_needed(&self, geometry: &Geometry) -> u64 {
        let voxels = geometry.voxel_count() as f64;
        let native_mm3: f64 = geometry.spacing().mm().iter().product();
        let tensor = voxels * native_mm3 / self.input.spacing_mm.iter().product::<f64>();
        let window = self.window.shape.iter().product::<usize>() as f64;
        let classes = self.output.classes.len() as f64;
        // Labels at 4 bytes and the mask at 1; tensor and its like while it is resampled at 4 each,
        // logits, their weights and the class that leads at 2 each.
        let bytes = (4.0 + 5.0) * voxels
            + (8.0 + 2.0 * (classes + 2.0)) * tensor
            + 4.0 * (classes + 2.0) * window;
        bytes as u64
    }
}

impl LabelNetwork {
    /// Loads weights, one set a fold, with their card.
    ///
    /// # Errors
    /// Exit 2 when the network knows no label of that name or wants more than one image; as
    /// [`WindowNetwork::load_weights`].
    pub fn load(
        card: WindowCard,
        weights: &[Vec<u8>],
        (label, mirroring): (&str, Mirroring),
        context: &Context,
    ) -> Result<Self> {
        let class = card.class(label)?;
        let channels = card.input.channels.len();
        if channels != 1 {
            return Err(Error::Config(format!(
                "the network takes {channels} images, but a mask is made of one; voxmask-segment takes more"
            )));
        }
        Ok(Self {
            network: WindowNetwork::load_weights(card, weights, context)?,
            class,
            mirroring,
        })
    }

    /// What the network's card says.
    pub fn card(&self) -> &WindowCard {
        &self.network.card
    }

    /// Which network this is, for reports.
    pub fn used(&self) -> NetworkUsed {
        self.network.used()
    }

    /// The label on the images' grid, one for each channel of the network's card; of a network with
    /// overlapping regions the whole region, whatever lies on top of it.
    ///
    /// The probability is that of a softmax over all classes, or, of regions, the region's own.
    ///
    /// # Errors
    /// As [`WindowNetwork::label_map`].
    pub fn find(&mut self, images: Vec<Image>, with_probability: bool) -> Result<Marked> {
        let mut said = self.network.say(images, self.mirroring)?;
        let output = &self.network.card.output;
        let mut classes = output.classes.clone();
        let mark = |(n, class): (usize, &mut Class)| class.label = u16::from(n == self.class);
        classes.iter_mut().enumerate().for_each(mark);
        let mut class = self.class;
        if output.decision == Decision::Regions {
            said.logits.keep(&[class]);
            classes = vec![classes.swap_remove(class)];
            class = 0;
        }
        let probability = with_probability
            .then(|| Image::of_thousandths(said.probability(output.decision, class)));
        let labels = said.label_map(output.decision, &classes);
        Ok(Marked {
            mask: Mask {
                voxels: labels.voxels.iter().map(|&label| label as u8).collect(),
                geometry: labels.geometry,
            },
            probability,
        })
    }

    /// The label as a mask on the grid of [`Canonical::image`]; the network sees the scan as it was
    /// stored.
    ///
    /// # Errors
    /// As [`WindowNetwork::label_map`].
    pub fn find_in(&mut self, scan: &Canonical) -> Result<Mask> {
        let marked = self.find(vec![scan.restore_image(scan.image.clone())], false)?;
        let mut mask = marked.mask.oriented(scan.image.geometry.orientation());
        mask.geometry = scan.image.geometry.clone();
        Ok(mask)
    }
}
