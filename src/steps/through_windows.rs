//! What those steps share that can run a network which sees scans through windows: one way from files
//! to files. It is no step itself.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::network::windows::{LabelNetwork, Mirroring, WindowNetwork};
use crate::ops::extent::Extent;
use crate::picture::{self, Colour};
use crate::step::Context;
use crate::volume::{self, Image, LabelMap, Mask, Summary};

/// The files of a run.
pub(super) struct Files<'a> {
    /// Volumes, one for each channel of the network.
    pub inputs: &'a [PathBuf],
    /// Frame of 4-D volumes to use, from 0.
    pub frame: Option<usize>,
    /// Label map or mask to write.
    pub output: &'a Path,
    /// Picture of the first volume to write, with the outline of what was found.
    pub picture: Option<&'a Path>,
    /// Colour of that outline.
    pub colour: Colour,
}

impl Files<'_> {
    /// Writes the network's label map; gives it back with what there is to say of the first volume.
    ///
    /// # Errors
    /// Those of reading, of [`WindowNetwork::label_map`], and exit 73.
    pub fn write_label_map(
        &self,
        network: &mut WindowNetwork,
        mirroring: Mirroring,
        context: &Context,
    ) -> Result<(Summary, LabelMap)> {
        let find = |images| network.label_map(images, mirroring);
        let all = |labels: &LabelMap| Mask {
            voxels: labels.voxels.iter().map(|&l| u8::from(l != 0)).collect(),
            geometry: labels.geometry.clone(),
        };
        let (input, labels) = self.find(find, all, context)?;
        volume::write_label_map(self.output, &labels, context.overwrite)?;
        Ok((input, labels))
    }

    /// Writes the mask of the network's label as it is, and its probability where that has a path;
    /// gives back what there is to say of the volume and of the mask.
    ///
    /// # Errors
    /// Those of reading, of [`LabelNetwork::find`], and exit 73.
    pub fn write_mask(
        &self,
        network: &mut LabelNetwork,
        probability: Option<&Path>,
        context: &Context,
    ) -> Result<(Summary, Extent)> {
        let find = |images| network.find(images, probability.is_some());
        let (input, found) = self.find(find, |found| found.mask.clone(), context)?;
        if let (Some(path), Some(image)) = (probability, &found.probability) {
            volume::write_image(path, image, context.overwrite)?;
        }
        volume::write_mask(self.output, &found.mask, context.overwrite)?;
        Ok((input, Extent::of(&found.mask)))
    }

    /// Reads, lets `find` work, and draws what of it is `outlined`; the first volume is read once more
    /// for that, since the network needs its memory.
    fn find<T>(
        &self,
        find: impl FnOnce(Vec<Image>) -> Result<T>,
        outlined: impl FnOnce(&T) -> Mask,
        context: &Context,
    ) -> Result<(Summary, T)> {
        let Some(first) = self.inputs.first() else {
            return Err(Error::Bug("a network was to see no volume".to_owned()));
        };
        let read = |path: &PathBuf| volume::read_image(path, self.frame);
        let images: Vec<Image> = self.inputs.iter().map(read).collect::<Result<_>>()?;
        let input = images[0].geometry.summary();
        context.stage("segmenting");
        let found = find(images)?;
        context.stage("writing what was found");
        if let Some(path) = self.picture {
            let drawn = picture::outline(read(first)?, outlined(&found), self.colour);
            drawn.write(path, context.overwrite)?;
        }
        Ok((input, found))
    }
}
