//! Which part of the plane is in view.

use std::fmt::{self, Display};

/// The nearest and the farthest that one can go.
const ZOOMS: [f64; 2] = [0.2, 2000.0];

/// The share of the window that the whole map fills at zoom 1.
const FILLED: f64 = 0.92;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Camera {
    /// The point of the plane in the middle of the window.
    pub centre: [f64; 2],
    /// How much larger everything is than where the whole map just fits.
    pub zoom: f64,
}

impl Camera {
    /// Reads what [`Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text
            .split(',')
            .map(|number| number.parse::<f64>().ok().filter(|number| number.is_finite()));
        let (x, y, zoom) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let is_whole = numbers.next().is_none() && zoom > 0.0;
        is_whole.then(|| Self {
            centre: [x, y],
            zoom: zoom.clamp(ZOOMS[0], ZOOMS[1]),
        })
    }
}

impl Display for Camera {
    /// With seven decimals: a link shows the same to a pixel or so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: f64| format!("{value:.7}").parse::<f64>().unwrap_or(value) + 0.0;
        write!(
            f,
            "{},{},{}",
            short(self.centre[0]),
            short(self.centre[1]),
            short(self.zoom)
        )
    }
}

/// The smallest rectangle around points: its least and its greatest corner. Of no points, a square around the origin.
pub fn bounds<'a>(points: impl Iterator<Item = &'a [f32; 2]>) -> [[f64; 2]; 2] {
    let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
    for point in points {
        for axis in 0..2 {
            low[axis] = low[axis].min(f64::from(point[axis]));
            high[axis] = high[axis].max(f64::from(point[axis]));
        }
    }
    match low[0] <= high[0] {
        true => [low, high],
        false => [[-1.0; 2], [1.0; 2]],
    }
}

/// A camera in a window: from the plane to pixels and back. Both axes have one scale, so that distances are true.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// What is looked at.
    pub camera: Camera,
    /// Width and height in pixels.
    pub size: [f64; 2],
    /// Pixels of one unit of the plane.
    pub scale: f64,
}

impl Window {
    /// The window of `size` on a map with these bounds.
    pub fn new(camera: Camera, size: [f64; 2], [low, high]: [[f64; 2]; 2]) -> Self {
        let fits = |axis: usize| size[axis] * FILLED / (high[axis] - low[axis]).max(1e-9);
        let scale = fits(0).min(fits(1)) * camera.zoom;
        Self { camera, size, scale }
    }

    /// The camera that shows everything.
    pub fn whole([low, high]: [[f64; 2]; 2]) -> Camera {
        Camera {
            centre: [(low[0] + high[0]) / 2.0, (low[1] + high[1]) / 2.0],
            zoom: 1.0,
        }
    }

    /// The camera that shows these points on a map with those bounds; everything where there are none.
    pub fn around(size: [f64; 2], [low, high]: [[f64; 2]; 2], points: &[[f64; 2]]) -> Camera {
        let whole = Self::whole([low, high]);
        if points.is_empty() {
            return whole;
        }
        let ends = |axis: usize| {
            let values = points.iter().map(|point| point[axis]);
            values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
                [low.min(value), high.max(value)]
            })
        };
        let ends = [ends(0), ends(1)];
        let window = Self::new(whole, size, [low, high]);
        // A single point is shown with a tenth of the map around it.
        let extent = |axis: usize| {
            (ends[axis][1] - ends[axis][0])
                .max((high[axis] - low[axis]) / 10.0)
                .max(1e-9)
        };
        let zoom = (0..2)
            .map(|axis| 0.7 * size[axis] / (extent(axis) * window.scale))
            .fold(f64::INFINITY, f64::min);
        Camera {
            centre: std::array::from_fn(|axis| (ends[axis][0] + ends[axis][1]) / 2.0),
            zoom: zoom.clamp(ZOOMS[0], ZOOMS[1]),
        }
    }

    /// Where a point of the plane is, from the upper left corner; the plane's second axis points up.
    pub fn pixel(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [width, height] = self.size;
        let centre = self.camera.centre;
        [
            width / 2.0 + (x - centre[0]) * self.scale,
            height / 2.0 - (y - centre[1]) * self.scale,
        ]
    }

    /// The point of the plane at a pixel.
    pub fn point(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [width, height] = self.size;
        let centre = self.camera.centre;
        [
            centre[0] + (x - width / 2.0) / self.scale,
            centre[1] - (y - height / 2.0) / self.scale,
        ]
    }

    /// Whether a point is in view.
    pub fn shows(&self, point: [f64; 2]) -> bool {
        let pixel = self.pixel(point);
        (0..2).all(|axis| (0.0..=self.size[axis]).contains(&pixel[axis]))
    }

    /// The camera after everything moved by so many pixels.
    pub fn panned(&self, [x, y]: [f64; 2]) -> Camera {
        let centre = self.camera.centre;
        Camera {
            centre: [centre[0] - x / self.scale, centre[1] + y / self.scale],
            ..self.camera
        }
    }

    /// The camera after everything grew by `factor` around a pixel, which stays in its place.
    pub fn zoomed(&self, factor: f64, at: [f64; 2]) -> Camera {
        let zoom = (self.camera.zoom * factor).clamp(ZOOMS[0], ZOOMS[1]);
        let factor = zoom / self.camera.zoom;
        let (kept, centre) = (self.point(at), self.camera.centre);
        Camera {
            centre: std::array::from_fn(|axis| kept[axis] + (centre[axis] - kept[axis]) / factor),
            zoom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [[f64; 2]; 2] = [[-2.0, -1.0], [2.0, 1.0]];

    fn window() -> Window {
        Window::new(Window::whole(BOUNDS), [400.0, 400.0], BOUNDS)
    }

    #[test]
    fn everything_fits_and_pixels_go_there_and_back() {
        let window = window();
        assert_eq!(window.scale, 92.0);
        assert_eq!(window.pixel([0.0, 0.0]), [200.0, 200.0]);
        assert_eq!(window.pixel([2.0, 1.0]), [384.0, 108.0], "the second axis points up");
        assert_eq!(window.point([384.0, 108.0]), [2.0, 1.0]);
        assert!(window.shows([2.0, -1.0]) && !window.shows([2.3, 0.0]));
    }

    #[test]
    fn what_is_zoomed_at_stays_and_the_ends_are_the_ends() {
        let zoomed = Window::new(window().zoomed(3.0, [300.0, 50.0]), [400.0, 400.0], BOUNDS);
        let (before, after) = (window().point([300.0, 50.0]), zoomed.point([300.0, 50.0]));
        assert!((0..2).all(|axis| (before[axis] - after[axis]).abs() < 1e-12));
        assert_eq!(zoomed.camera.zoom, 3.0);
        assert_eq!(zoomed.zoomed(1e9, [0.0, 0.0]).zoom, ZOOMS[1]);
        assert_eq!(window().panned([92.0, 46.0]).centre, [-1.0, 0.5]);
    }

    #[test]
    fn a_camera_around_points_shows_them_all() {
        let size = [400.0, 300.0];
        let points = [[1.0, 0.5], [1.5, -0.5]];
        let window = Window::new(Window::around(size, BOUNDS, &points), size, BOUNDS);
        assert!(points.into_iter().all(|point| window.shows(point)));
        assert_eq!((window.camera.centre, window.camera.zoom > 1.0), ([1.25, 0.0], true));
        assert_eq!(Window::around(size, BOUNDS, &[]), Window::whole(BOUNDS));
        assert!(Window::around(size, BOUNDS, &[[2.0, 1.0]]).zoom > 3.0);
    }

    #[test]
    fn a_camera_reads_back_and_nonsense_does_not() {
        let camera = Camera {
            centre: [-1.25, 0.000_01],
            zoom: 4.0,
        };
        assert_eq!(Camera::parse(&camera.to_string()), Some(camera));
        for text in ["", "1,2", "1,2,x", "1,2,0", "1,2,NaN", "1,2,3,4"] {
            assert_eq!(Camera::parse(text), None, "{text}");
        }
    }

    #[test]
    fn bounds_of_nothing_are_a_square() {
        assert_eq!(bounds([].iter()), [[-1.0; 2], [1.0; 2]]);
        assert_eq!(bounds([[1.0, -3.0], [0.5, 2.0]].iter()), [[0.5, -3.0], [1.0, 2.0]]);
        let one = bounds([[1.0, 1.0]].iter());
        assert!(Window::new(Window::whole(one), [10.0, 10.0], one).scale.is_finite());
    }
}
