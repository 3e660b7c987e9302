//! Pixels, palette and letters of a montage.

use super::{Colour, LAYERS};

/// Share of a mask's colour in the pixels inside it.
const TINT: f32 = 0.15;

/// Numbers of the colours in a palette: for no layer and for each layer a ramp of greys (tinted in
/// the layer's colour), then the outlines, the letters and the gaps.
pub(super) struct Ink {
    layers: usize,
    levels: usize,
}

impl Ink {
    pub(super) fn new(layers: usize) -> Self {
        let layers = layers.min(LAYERS);
        let levels = (256 - layers - 2) / (layers + 1);
        Self { layers, levels }
    }

    /// A grey between 0 (black) and 1 (white), tinted as the inside of `layer`.
    pub(super) fn grey(&self, brightness: f32, layer: Option<usize>) -> u8 {
        let ramp = layer.map_or(0, |layer| layer + 1);
        let last = self.levels - 1;
        let level = last as f32 * brightness.clamp(0.0, 1.0);
        number(ramp * self.levels + (level.round() as usize).min(last))
    }

    pub(super) fn outline(&self, layer: usize) -> u8 {
        number(self.levels * (self.layers + 1) + layer)
    }

    fn letter(&self) -> u8 {
        number(self.levels * (self.layers + 1) + self.layers)
    }

    fn gap(&self) -> u8 {
        number(self.levels * (self.layers + 1) + self.layers + 1)
    }

    pub(super) fn palette(&self, colours: &[Colour]) -> Vec<Colour> {
        let mut palette = Vec::with_capacity(256);
        for ramp in 0..=self.layers {
            let tint = ramp.checked_sub(1).and_then(|layer| colours.get(layer));
            palette.extend((0..self.levels).map(|level| tinted(level, self.levels - 1, tint)));
        }
        palette.extend_from_slice(&colours[..self.layers]);
        palette.push(Colour([255; 3]));
        palette.push(Colour([64; 3]));
        palette
    }
}

fn tinted(level: usize, last: usize, tint: Option<&Colour>) -> Colour {
    let grey = 255.0 * level as f32 / last as f32;
    let share = if tint.is_some() { TINT } else { 0.0 };
    let Colour(tint) = tint.copied().unwrap_or(Colour([0; 3]));
    Colour(tint.map(|t| (grey * (1.0 - share) + f32::from(t) * share).round() as u8))
}

fn number(colour: usize) -> u8 {
    u8::try_from(colour).unwrap_or(u8::MAX)
}

/// Pixels in rows from the top left.
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn filled(width: usize, height: usize, colour: u8) -> Self {
        Self {
            width,
            height,
            pixels: vec![colour; width * height],
        }
    }

    /// Puts `other` on this canvas, its top left corner at `(x, y)`; it must fit.
    pub(super) fn put(&mut self, other: &Self, (x, y): (usize, usize)) {
        for row in 0..other.height {
            let from = &other.pixels[row * other.width..][..other.width];
            self.pixels[(y + row) * self.width + x..][..other.width].copy_from_slice(from);
        }
    }

    /// Writes letters at the middle of the left, right, top and bottom side, if there is room.
    pub(super) fn letter(&mut self, [left, right, top, bottom]: [char; 4], ink: &Ink) {
        let (width, height) = (glyph_width(), GLYPH_ROWS + 2);
        if self.width < 5 * width || self.height < 4 * height {
            return;
        }
        let (right_edge, bottom_edge) = (self.width - width, self.height - height);
        let places = [
            (left, (0, bottom_edge / 2)),
            (right, (right_edge, bottom_edge / 2)),
            (top, (right_edge / 2, 0)),
            (bottom, (right_edge / 2, bottom_edge)),
        ];
        for (letter, place) in places {
            self.put(&glyph(letter, ink), place);
        }
    }
}

/// Lays rows of tiles under each other, with gaps between and around them.
pub(super) fn montage(rows: &[Vec<Canvas>], gap: usize, ink: &Ink) -> Canvas {
    let row_width = |row: &Vec<Canvas>| row.iter().map(|tile| tile.width + gap).sum::<usize>();
    let row_height = |row: &Vec<Canvas>| row.iter().map(|tile| tile.height).max().unwrap_or(0);
    let width = rows.iter().map(row_width).max().unwrap_or(0) + gap;
    let height = rows.iter().map(|row| row_height(row) + gap).sum::<usize>() + gap;
    let mut montage = Canvas::filled(width, height, ink.gap());
    let mut y = gap;
    for row in rows {
        let mut x = gap;
        for tile in row {
            montage.put(tile, (x, y));
            x += tile.width + gap;
        }
        y += row_height(row) + gap;
    }
    montage
}

const GLYPH_ROWS: usize = 7;
const GLYPH_COLUMNS: usize = 5;

fn glyph_width() -> usize {
    GLYPH_COLUMNS + 2
}

/// A letter of the six that name directions, five by seven pixels in a frame of black.
fn glyph(letter: char, ink: &Ink) -> Canvas {
    let rows: [&str; GLYPH_ROWS] = match letter {
        'A' => [
            ".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#",
        ],
        'I' => [
            ".###.", "..#..", "..#..", "..#..", "..#..", "..#..", ".###.",
        ],
        'L' => [
            "#....", "#....", "#....", "#....", "#....", "#....", "#####",
        ],
        'P' => [
            "####.", "#...#", "#...#", "####.", "#....", "#....", "#....",
        ],
        'R' => [
            "####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#",
        ],
        'S' => [
            ".####", "#....", "#....", ".###.", "....#", "....#", "####.",
        ],
        _ => [
            ".....", ".....", ".....", ".....", ".....", ".....", ".....",
        ],
    };
    let mut canvas = Canvas::filled(glyph_width(), GLYPH_ROWS + 2, ink.grey(0.0, None));
    for (y, row) in rows.iter().enumerate() {
        for (x, _) in row.bytes().enumerate().filter(|(_, dot)| *dot == b'#') {
            canvas.pixels[(y + 1) * glyph_width() + x + 1] = ink.letter();
        }
    }
    canvas
}
