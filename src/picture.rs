//! Pictures that a person can judge a mask by: a montage of slices with the mask's outline, as PNG.
//!
//! Three rows: axial, coronal, sagittal, each of five or more slices, spread so that
//! between two of them lies the same share of the mask. They are shown as radiologists do: the patient's right is on the left of the picture
//! (axial, coronal), the front on the left (sagittal), front or head up; letters in the first tile
//! of each row say so. A tile is a whole slice of voxels in true aspect ratio; an oblique grid is
//! shown along its own axes, not resampled. No text comes from a header.

mod canvas;
mod slice;

use std::path::Path;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::file;
use crate::volume::{CT_BELOW_HU, Image, Mask, Orientation};
use canvas::{Canvas, Ink};
use slice::{Plane, Profiles, Slices, Tile, View};

/// Slices in a row of the montage: as many as five square tiles are wide.
const SLICES: Slices = Slices {
    room: 5 * TILE,
    least: 5,
    most: 10,
};

/// Masks that one picture can show.
pub const LAYERS: usize = 4;

/// Longer side of a tile, in pixels. Three rows of five such tiles at one byte a pixel stay below
/// 1 MB however badly they compress.
const TILE: usize = 250;

/// Pixels between tiles.
const GAP: usize = 3;

/// Voxels that a percentile is taken from, at most.
const SAMPLED: usize = 250_000;

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub [u8; 3]);

impl Colour {
    /// Sky blue, for the foreground.
    ///
    /// # Source
    /// Okabe and Ito, «Color Universal Design», 2008: colours that the colour-blind tell apart.
    pub const FOREGROUND: Self = Self([86, 180, 233]);
    /// Orange, for the anonymization area; source as for [`Colour::FOREGROUND`].
    pub const ANONYMIZATION_AREA: Self = Self([230, 159, 0]);
}

/// A mask on the image's grid, and the colour of its outline.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The mask.
    pub mask: &'a Mask,
    /// Colour of its outline and, faintly, of its inside.
    pub colour: Colour,
}

/// Which values are black and which are white.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Window {
    /// Black at the 1st and white at the 99.5th percentile of the voxels above the lowest value.
    Percentile,
    /// Black at `low` and below, white at `high` and above.
    Fixed {
        /// The value that is black.
        low: f32,
        /// The value that is white.
        high: f32,
    },
}

impl Window {
    /// Soft tissue in CT, wide enough to tell skin, clothes and table from air [HU].
    pub const CT: Self = Self::Fixed {
        low: -500.0,
        high: 400.0,
    };

    /// [`Window::CT`] for an image that goes below [`CT_BELOW_HU`]; else by percentile.
    pub fn for_image(image: &Image) -> Self {
        match sampled(image).into_iter().reduce(f32::min) {
            Some(lowest) if lowest < CT_BELOW_HU => Self::CT,
            _ => Self::Percentile,
        }
    }

    fn limits(self, image: &Image) -> (f32, f32) {
        let (low, high) = match self {
            Self::Fixed { low, high } => (low, high),
            Self::Percentile => percentiles(sampled(image)),
        };
        (low, if high > low { high } else { low + 1.0 })
    }
}

/// A montage: pixels in rows from the top left, each the number of a colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Number in `palette` of each pixel.
    pub pixels: Vec<u8>,
    /// At most 256 colours.
    pub palette: Vec<Colour>,
}

impl Picture {
    /// Writes the picture as PNG, whole or not at all.
    ///
    /// # Errors
    /// Exit 73; also when the file exists and `overwrite` is false.
    pub fn write(&self, path: &Path, overwrite: bool) -> Result<()> {
        file::write_whole(path, overwrite, |writer| {
            self.encode(writer).map_err(|error| match error {
                // As it came, so that a full disk is told apart.
                png::EncodingError::IoError(error) => error,
                other => std::io::Error::other(other),
            })
        })
    }

    /// The picture as JPEG of a quality from 1 to 100: a tenth of the bytes of a PNG, for pages that
    /// hold thousands.
    ///
    /// # Errors
    /// Exit 70 when it is too big for JPEG.
    pub fn jpeg(&self, quality: u8) -> Result<Vec<u8>> {
        let bug = |e: &dyn std::fmt::Display| Error::Bug(format!("a picture as JPEG: {e}"));
        let width = u16::try_from(self.width).map_err(|e| bug(&e))?;
        let height = u16::try_from(self.height).map_err(|e| bug(&e))?;
        let colour = |&pixel: &u8| self.palette.get(usize::from(pixel)).map_or([0; 3], |c| c.0);
        let rgb: Vec<u8> = self.pixels.iter().flat_map(colour).collect();
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
        // Outlines are one pixel wide: halved colour would wash them out.
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
        let encoded = encoder.encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb);
        encoded.map_err(|e| bug(&e))?;
        Ok(bytes)
    }

    fn encode(
        &self,
        writer: &mut dyn std::io::Write,
    ) -> std::result::Result<(), png::EncodingError> {
        let too_big = |_| std::io::Error::other("the picture is too big for PNG");
        let width = u32::try_from(self.width).map_err(too_big)?;
        let height = u32::try_from(self.height).map_err(too_big)?;
        let mut encoder = png::Encoder::new(writer, width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(self.palette.iter().flat_map(|c| c.0).collect::<Vec<u8>>());
        encoder.set_compression(png::Compression::Balanced);
        // Numbers of colours are no intensities: differences between neighbours do not compress.
        encoder.set_filter(png::Filter::NoFilter);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()
    }
}

/// Draws slices of `image` with the outlines of `layers` (at most [`LAYERS`], all on its grid).
///
/// The slices go through the last layer that is not empty, else through the whole volume. Where
/// layers overlap, the last one's colour shows.
pub fn overlay(image: &Image, layers: &[Layer], window: Window) -> Picture {
    let layers = &layers[..layers.len().min(LAYERS)];
    let ink = Ink::new(layers.len());
    let limits = window.limits(image);
    let masks: Vec<&Mask> = layers.iter().map(|l| l.mask).collect();
    let view = View::new(&image.geometry, TILE);
    let profiles = profiles(image, &masks);
    let rows: Vec<Vec<Canvas>> = Plane::ALL
        .iter()
        .map(|&plane| {
            let depths = view.depths(plane, &profiles, SLICES);
            let tiles = depths.par_iter().enumerate().map(|(column, &depth)| {
                let mut canvas = draw(&view.tile(image, &masks, plane, depth), limits, &ink);
                if column == 0 {
                    canvas.letter(plane.letters(), &ink);
                }
                canvas
            });
            tiles.collect()
        })
        .collect();
    let montage = canvas::montage(&rows, GAP, &ink);
    let colours: Vec<Colour> = layers.iter().map(|l| l.colour).collect();
    Picture {
        width: montage.width,
        height: montage.height,
        pixels: montage.pixels,
        palette: ink.palette(&colours),
    }
}

/// Draws the slices of a page that one leafs through: a row each for axial, coronal and sagittal, of
/// [`SHEET_COLUMNS`] tiles of [`SHEET_TILE`] by [`SHEET_TILE`] pixels, slices chosen as in
/// Draws an image that was read a moment ago with the outline of a mask on its grid.
pub fn outline(image: Image, mask: Mask, colour: Colour) -> Picture {
    let image = image.oriented(Orientation::RAS);
    let mask = mask.oriented(Orientation::RAS);
    let layer = Layer {
        mask: &mask,
        colour,
    };
    overlay(&image, &[layer], Window::for_image(&image))
}

/// [`overlay`]; a slice that is not square is centred on black.
pub fn sheet(image: &Image, layers: &[Layer], window: Window) -> Picture {
    let layers = &layers[..layers.len().min(LAYERS)];
    let ink = Ink::new(layers.len());
    let limits = window.limits(image);
    let masks: Vec<&Mask> = layers.iter().map(|l| l.mask).collect();
    let view = View::new(&image.geometry, SHEET_TILE);
    let profiles = profiles(image, &masks);
    let black = ink.grey(0.0, None);
    let (width, height) = (SHEET_COLUMNS * SHEET_TILE, Plane::ALL.len() * SHEET_TILE);
    let mut sheet = Canvas::filled(width, height, black);
    for (row, &plane) in Plane::ALL.iter().enumerate() {
        let depths = view.spread(plane, &profiles, SHEET_COLUMNS);
        for (column, &depth) in depths.iter().enumerate() {
            let mut canvas = draw(&view.tile(image, &masks, plane, depth), limits, &ink);
            canvas.letter(plane.letters(), &ink);
            let x = column * SHEET_TILE + (SHEET_TILE - canvas.width) / 2;
            let y = row * SHEET_TILE + (SHEET_TILE - canvas.height) / 2;
            sheet.put(&canvas, (x, y));
        }
    }
    let colours: Vec<Colour> = layers.iter().map(|l| l.colour).collect();
    Picture {
        width,
        height,
        pixels: sheet.pixels,
        palette: ink.palette(&colours),
    }
}

/// Tiles in a row of a [`sheet`].
pub const SHEET_COLUMNS: usize = 6;

/// Pixels of a side of a tile of a [`sheet`].
pub const SHEET_TILE: usize = 128;

/// Of the last mask that is not empty; else every slice counts the same.
fn profiles(image: &Image, masks: &[&Mask]) -> Profiles {
    let counted = masks.iter().rev().map(|mask| slice::profiles(mask));
    let mut filled = counted.filter(|profiles| profiles[0].iter().any(|&n| n > 0));
    let even = || image.shape().map(|count| vec![1; count]);
    filled.next().unwrap_or_else(even)
}

fn draw(tile: &Tile, (low, high): (f32, f32), ink: &Ink) -> Canvas {
    let mut canvas = Canvas::filled(tile.width, tile.height, ink.grey(0.0, None));
    for (n, pixel) in canvas.pixels.iter_mut().enumerate() {
        let top = tile.masks.iter().rposition(|mask| mask[n]);
        *pixel = ink.grey((tile.values[n] - low) / (high - low), top);
    }
    for (layer, mask) in tile.masks.iter().enumerate() {
        for n in slice::outline(mask, tile.width) {
            canvas.pixels[n] = ink.outline(layer);
        }
    }
    canvas
}

/// Values of a regular choice of voxels, at most [`SAMPLED`], without those that are not finite.
fn sampled(image: &Image) -> Vec<f32> {
    // An odd step, so that a choice of voxels is no choice of columns in the usual even shapes.
    let step = (image.samples.len() / SAMPLED + 1) | 1;
    let voxels = (0..image.samples.len()).step_by(step);
    let values = voxels.map(|n| image.samples.value(n));
    values.filter(|v| v.is_finite()).collect()
}

/// 1st and 99.5th percentile of the values above the lowest one, so that a constant background has
/// no say; the one value of a constant image twice.
fn percentiles(values: Vec<f32>) -> (f32, f32) {
    let lowest = values.iter().copied().fold(f32::INFINITY, f32::min);
    let mut above: Vec<f32> = values.into_iter().filter(|v| *v > lowest).collect();
    if above.is_empty() {
        let only = if lowest.is_finite() { lowest } else { 0.0 };
        return (only, only);
    }
    let last = above.len() - 1;
    let (_, low, _) = above.select_nth_unstable_by(last / 100, f32::total_cmp);
    let low = *low;
    let (_, high, _) = above.select_nth_unstable_by(last - last / 200, f32::total_cmp);
    (low, *high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Affine, Geometry, Orientation, Samples};

    fn volume(shape: [usize; 3], spacing: [f64; 3]) -> (Image, Mask) {
        let columns = [0, 1, 2].map(|axis| {
            let mut column = [0.0; 3];
            column[axis] = spacing[axis];
            column
        });
        let geometry = Geometry::new(shape, Affine::from_columns(columns, [0.0; 3]));
        let count = geometry.voxel_count();
        // A hash: noise that is the same everywhere.
        let noise = |n: usize| (n as u32).wrapping_mul(2_654_435_761).rotate_left(9) as f32;
        let image = Image {
            samples: Samples::F32((0..count).map(noise).collect()),
            geometry: geometry.clone(),
        };
        let voxels = vec![0; count];
        (image, Mask { voxels, geometry })
    }

    fn layer(mask: &Mask) -> Layer<'_> {
        let colour = Colour::FOREGROUND;
        Layer { mask, colour }
    }

    fn encoded(picture: &Picture) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn tiles_keep_millimetres_square() {
        // 40 mm × 40 mm × 10 mm: five tiles of 250, then two rows of 250 by 62 or 63.
        let (image, _) = volume([40, 20, 2], [1.0, 2.0, 5.0]);
        let picture = overlay(&image, &[], Window::Percentile);
        assert_eq!(picture.width, 5 * TILE + 6 * GAP);
        let wanted = 250 + 63 + 63 + 4 * GAP;
        assert!(picture.height.abs_diff(wanted) <= 2, "{}", picture.height);
    }

    #[test]
    fn pictures_of_noise_stay_below_a_megabyte() {
        let (image, mut mask) = volume([300, 250, 260], [0.7, 0.8, 0.9]);
        mask.voxels.iter_mut().step_by(3).for_each(|v| *v = 1);
        let picture = overlay(&image, &[layer(&mask)], Window::Percentile);
        let decoder = png::Decoder::new(std::io::Cursor::new(encoded(&picture)));
        assert_eq!(
            decoder.read_info().unwrap().info().width as usize,
            picture.width
        );
        assert!(encoded(&picture).len() < 1_000_000);
    }

    #[test]
    fn every_shape_gives_a_picture() {
        for shape in [[1, 1, 1], [1, 300, 2], [64, 64, 1], [2, 1, 900]] {
            let (image, mask) = volume(shape, [1.0, 0.5, 4.0]);
            let picture = overlay(&image, &[layer(&mask)], Window::for_image(&image));
            assert_eq!(picture.pixels.len(), picture.width * picture.height);
            assert!(encoded(&picture).len() < 1_000_000);
        }
    }

    #[test]
    fn constant_images_and_empty_masks_give_a_picture_without_outline() {
        let (mut image, mask) = volume([20, 20, 20], [1.0; 3]);
        image.samples = Samples::F32(vec![7.0; 8000]);
        let picture = overlay(&image, &[layer(&mask)], Window::for_image(&image));
        let outline = Ink::new(1).outline(0);
        assert!(!picture.pixels.contains(&outline));
    }

    #[test]
    fn the_patients_left_front_is_at_the_top_right_whatever_the_orientation() {
        let (image, mut mask) = volume([40, 40, 40], [1.0; 3]);
        for n in 0..40 * 40 * 40 {
            let (i, j) = (n % 40, n / 40 % 40);
            mask.voxels[n] = u8::from((2..8).contains(&i) && j > 30);
        }
        for name in ["RAS", "LPS", "PIR", "SAL"] {
            let orientation: Orientation = name.parse().unwrap();
            let image = image.clone().oriented(orientation);
            let mask = mask.clone().oriented(orientation);
            let drawn = overlay(&image, &[layer(&mask)], Window::Percentile);
            let outline = Ink::new(1).outline(0);
            let first = drawn.pixels.iter().position(|&p| p == outline).unwrap();
            let (x, y) = (first % drawn.width - GAP, first / drawn.width - GAP);
            // Voxels 2 to 8 of 40 from the left, seen from below; cut off at the front.
            assert!(x.abs_diff(TILE * 32 / 40) <= 2 && y == 0, "{name}: {x} {y}");
        }
    }
}
