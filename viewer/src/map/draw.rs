//! The points as pixels. They are set here and put on the page at once: a call of the browser for each of 100,000 points would
//! take longer than a frame has.

use super::camera::Window;
use super::points::{Kind, Points};

/// The shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A filled circle.
    Disc,
    /// A filled square on a corner.
    Diamond,
    /// A circle's line.
    Ring,
}

impl Shape {
    /// The pixels that it covers, from its middle.
    fn pixels(self, radius: f64) -> Vec<[i32; 2]> {
        let reach = radius.ceil() as i32;
        let span = || -reach..=reach;
        let covers = |x: i32, y: i32| {
            let distance = f64::from(x * x + y * y).sqrt();
            match self {
                Self::Disc => distance <= radius,
                Self::Diamond => f64::from(x.abs() + y.abs()) <= radius,
                Self::Ring => distance <= radius && distance > radius - (radius / 3.0).max(1.0),
            }
        };
        span()
            .flat_map(|y| span().map(move |x| [x, y]))
            .filter(|&[x, y]| covers(x, y))
            .collect()
    }

    /// How large it is beside a disc, so that all shapes look of one size.
    fn growth(self) -> f64 {
        match self {
            Self::Disc => 1.0,
            Self::Diamond => 1.9,
            Self::Ring => 1.7,
        }
    }
}

/// A picture: red, green, blue and opacity of each pixel, row after row.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 4]>,
}

impl Picture {
    /// An empty picture of that size, in the memory that there is.
    pub fn clear(&mut self, [width, height]: [usize; 2]) {
        self.width = width;
        self.height = height;
        self.pixels.clear();
        self.pixels.resize(width.saturating_mul(height), [0; 4]);
    }

    /// The bytes of its pixels.
    pub fn bytes(&self) -> &[u8] {
        self.pixels.as_flattened()
    }

    /// Draws the points of these kinds. `density` is how many pixels of the picture one of the window's is.
    pub fn draw(&mut self, points: &Points, kinds: &[Kind], window: &Window, density: f64, is_dark: bool) {
        let count: usize = kinds.iter().map(|&kind| points.layer(kind).points.len()).sum();
        // Few points may be larger: 1.6 pixels are for 100,000.
        let growth = (100_000.0 / count.max(1) as f64).powf(0.1).clamp(1.0, 1.75);
        let radius = density * (1.6 * growth * window.camera.zoom.powf(0.3)).clamp(1.2, 6.0);
        for kind in Kind::ALL.into_iter().filter(|kind| kinds.contains(kind)) {
            let layer = points.layer(kind);
            let covered = kind.shape().pixels(radius * kind.shape().growth());
            let colours: Vec<[u8; 4]> = (0..=255u8)
                .map(|step| kind.palette().colour(f32::from(step) / 255.0, is_dark))
                .collect();
            for place in 0..layer.points.len() {
                let number = layer.order.get(place).map_or(place, |&number| number as usize);
                let Some(point) = layer.points.get(number) else {
                    continue;
                };
                let [x, y] = window.pixel(point.map(f64::from));
                let share = layer.shares.get(number).copied().unwrap_or(0.5);
                // A cast takes what lies outside for the nearest number.
                self.stamp(
                    [(x * density) as i32, (y * density) as i32],
                    &covered,
                    colours[(share * 255.0) as u8 as usize],
                );
            }
        }
    }

    fn stamp(&mut self, [x, y]: [i32; 2], covered: &[[i32; 2]], colour: [u8; 4]) {
        let (width, height) = (self.width as i32, self.height as i32);
        // Most points of a map that is zoomed in are far away.
        if x < -64 || y < -64 || x > width + 64 || y > height + 64 {
            return;
        }
        for [right, down] in covered {
            let (x, y) = (x + right, y + down);
            if x >= 0
                && x < width
                && y >= 0
                && let Some(pixel) = self.pixels.get_mut(y as usize * self.width + x as usize)
            {
                *pixel = colour;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::camera::Camera;
    use super::super::colours::Palette;
    use super::*;

    fn drawn(kinds: &[Kind]) -> Picture {
        let mut points = Points::new(1);
        points.take(Kind::Item, vec![[0.0, 0.0], [4.0, -4.0], [1e30, 1e30]]);
        points.take(Kind::Profile, vec![[0.0, 0.0]]);
        let camera = Camera {
            centre: [0.0, 0.0],
            zoom: 1.0,
        };
        let window = Window {
            camera,
            size: [20.0, 20.0],
            scale: 2.0,
        };
        let mut picture = Picture::default();
        picture.clear([20, 20]);
        picture.draw(&points, kinds, &window, 1.0, false);
        picture
    }

    #[test]
    fn points_are_where_they_belong_and_profiles_lie_on_top() {
        let at = |picture: &Picture, x: usize, y: usize| picture.pixels[y * 20 + x];
        let [item, profile] = [Palette::Item, Palette::Profile].map(|palette| palette.colour(127.0 / 255.0, false));
        let picture = drawn(&Kind::ALL);
        assert_eq!((at(&picture, 10, 10), at(&picture, 18, 18)), (profile, item));
        assert_eq!(at(&picture, 14, 14), [0; 4], "between the points is nothing");
        assert_eq!(at(&drawn(&[Kind::Item]), 10, 10), item);
        assert_eq!(drawn(&[]).bytes(), [0; 1600]);
    }

    #[test]
    fn shapes_differ() {
        assert_eq!(Shape::Diamond.pixels(1.0).len(), 5);
        assert_eq!(Shape::Disc.pixels(1.5).len(), 9);
        let ring = Shape::Ring.pixels(3.0);
        assert!(ring.contains(&[3, 0]) && !ring.contains(&[0, 0]));
    }
}
