//! An image turned to RAS for computing, and the way back to the grid it came on.

use std::path::Path;

use super::{Geometry, Image, Orientation, Volume, read_image};
use crate::error::Result;

/// An image in RAS, and the grid of the file it came from.
pub struct Canonical {
    /// The image; its i, j, k run to the right, the front and up.
    pub image: Image,
    /// The file's own grid, header fields and all.
    pub stored: Geometry,
}

impl Canonical {
    /// Reads an image and turns it.
    ///
    /// # Errors
    /// As [`read_image`].
    pub fn read(path: &Path, frame: Option<usize>) -> Result<Self> {
        Ok(Self::of(read_image(path, frame)?))
    }

    /// Turns an image.
    pub fn of(image: Image) -> Self {
        let stored = image.geometry.clone();
        Self {
            image: image.oriented(Orientation::RAS),
            stored,
        }
    }

    /// Puts a result that lies on [`Canonical::image`]'s grid on the file's grid, bit for bit.
    pub fn restore<T: Copy + Send + Sync>(&self, result: Volume<T>) -> Volume<T> {
        let mut turned = result.oriented(self.stored.orientation());
        turned.geometry = self.stored.clone();
        turned
    }

    /// Turns the image itself back to how it was stored.
    pub fn into_stored(self) -> Image {
        let mut turned = self.image.oriented(self.stored.orientation());
        turned.geometry = self.stored;
        turned
    }

    /// [`Canonical::restore`] for an image.
    pub fn restore_image(&self, result: Image) -> Image {
        let mut turned = result.oriented(self.stored.orientation());
        turned.geometry = self.stored.clone();
        turned
    }
}
