//! The weather around a rain sensor: its wind and how much it rains, changing slowly for ever.

use super::random::Random;

/// Frames from one regime to the next: long beside a forecast, short beside a stream.
const REGIME: i64 = 240;

/// What holds at one frame. Lengths are in pixels, times in frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weather {
    /// Speed of the domain's centre, (x, y).
    pub(super) velocity: [f64; 2],
    /// Rotation, expansion, and the two components of shear, each per frame.
    pub(super) rotation: f64,
    pub(super) divergence: f64,
    pub(super) shear: [f64; 2],
    /// The texture's amplitude, and the threshold above which it rains.
    pub(super) amplitude: f64,
    pub(super) threshold: f64,
    /// Cells that peak in 38 frames on 96 × 96 pixels.
    pub(super) cells: f64,
}

/// From what the weather is drawn.
#[derive(Clone, Debug)]
pub(super) struct Climate {
    /// What the draws depend on.
    pub(super) key: Vec<u64>,
    /// Pixels a frame.
    pub(super) speed: [f64; 2],
    /// Degrees, where the rain moves to; drawn when absent.
    pub(super) direction: Option<f64>,
    /// Standard deviations per frame.
    pub(super) rotation: f64,
    pub(super) divergence: f64,
    pub(super) shear: f64,
    /// See [`Weather::cells`].
    pub(super) cells: [f64; 2],
}

impl Climate {
    /// The weather of a frame: regimes are drawn every [`REGIME`] frames and blend in between.
    pub(super) fn at(&self, frame: i64) -> Weather {
        let knot = frame.div_euclid(REGIME);
        let (from, to) = (self.regime(knot), self.regime(knot + 1));
        let part = frame.rem_euclid(REGIME) as f64 / REGIME as f64;
        let blend = |a: f64, b: f64| a + (b - a) * part;
        let pair = |a: [f64; 2], b: [f64; 2]| [blend(a[0], b[0]), blend(a[1], b[1])];
        Weather {
            velocity: pair(from.velocity, to.velocity),
            rotation: blend(from.rotation, to.rotation),
            divergence: blend(from.divergence, to.divergence),
            shear: pair(from.shear, to.shear),
            amplitude: blend(from.amplitude, to.amplitude),
            threshold: blend(from.threshold, to.threshold),
            cells: blend(from.cells, to.cells),
        }
    }

    fn regime(&self, knot: i64) -> Weather {
        let mut key = self.key.clone();
        key.push(knot as u64);
        let mut random = Random::new(&key);
        let speed = random.between(self.speed);
        let any = random.between([0.0, 360.0]);
        let (sin, cos) = self.direction.unwrap_or(any).to_radians().sin_cos();
        let [rotation, divergence] = random.normals();
        let [stretch, slant] = random.normals();
        Weather {
            velocity: [speed * cos, speed * sin],
            rotation: self.rotation * rotation,
            divergence: self.divergence * divergence,
            shear: [self.shear * stretch, self.shear * slant],
            amplitude: random.between([0.3, 1.1]),
            threshold: random.between([-0.3, 0.9]),
            cells: random.between(self.cells),
        }
    }
}

/// An affine map of the plane, p ↦ M p + t, as `[mxx, mxy, tx, myx, myy, ty]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Affine(pub(super) [f64; 6]);

impl Affine {
    /// Every point stays.
    pub(super) const IDENTITY: Self = Self([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);

    /// Where air at p, measured from the domain's centre, is `frames` later (or, negative,
    /// was before) in steady `weather`: the exact flow of the linear part, exp(A s), with the
    /// velocity taken at half way. The map for −s undoes the map for s.
    pub(super) fn drift(weather: &Weather, frames: f64) -> Self {
        let Weather { velocity, rotation, divergence, shear: [stretch, slant], .. } = *weather;
        // A = divergence I + B with B² = q I, so that exp(A s) has a closed form.
        let exponential = |s: f64| {
            let q = stretch * stretch + slant * slant - rotation * rotation;
            let root = q.abs().sqrt();
            let (even, odd) = if q > 0.0 {
                ((root * s).cosh(), (root * s).sinh() / root)
            } else if q < 0.0 {
                ((root * s).cos(), (root * s).sin() / root)
            } else {
                (1.0, s)
            };
            let scale = (divergence * s).exp();
            [
                scale * (even + odd * stretch),
                scale * odd * (slant - rotation),
                scale * odd * (slant + rotation),
                scale * (even - odd * stretch),
            ]
        };
        let ([a, b, c, d], half) = (exponential(frames), exponential(frames / 2.0));
        let [x, y] = velocity.map(|speed| speed * frames);
        Self([a, b, half[0] * x + half[1] * y, c, d, half[2] * x + half[3] * y])
    }

    /// Where p goes.
    pub(super) fn apply(&self, x: f64, y: f64) -> [f64; 2] {
        let [a, b, tx, c, d, ty] = self.0;
        [a * x + b * y + tx, c * x + d * y + ty]
    }

    /// First `first`, then this map.
    pub(super) fn after(&self, first: &Self) -> Self {
        let [a, b, _, c, d, _] = self.0;
        let [e, f, tx, g, h, ty] = first.0;
        let [tx, ty] = self.apply(tx, ty);
        Self([a * e + b * g, a * f + b * h, tx, c * e + d * g, c * f + d * h, ty])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_its_inverse_cancel() {
        let climate = Climate {
            key: vec![3],
            speed: [0.0, 4.5],
            direction: None,
            rotation: 0.05,
            divergence: 0.05,
            shear: 0.05,
            cells: [3.0, 13.0],
        };
        for frame in [-1000, -1, 0, 17, 239, 240, 12345] {
            let weather = climate.at(frame);
            let there = Affine::drift(&weather, 1.0);
            let Affine(both) = Affine::drift(&weather, -1.0).after(&there);
            let off = both.iter().zip(Affine::IDENTITY.0).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f64::max) < 1e-12);
            // The area grows by twice the expansion rate of a length.
            let [a, b, _, c, d, _] = there.0;
            assert!((a * d - b * c - (2.0 * weather.divergence).exp()).abs() < 1e-12);
            // Regimes change slowly.
            let next = climate.at(frame + 1);
            assert!((next.velocity[0] - weather.velocity[0]).abs() < 10.0 / REGIME as f64);
        }
    }

    /// In sheared, turning and spreading air a parcel goes where small steps along the wind take
    /// it; in pure shear where the textbook says.
    #[test]
    fn a_sheared_parcel_follows_the_wind() {
        let calm = Weather {
            velocity: [0.0; 2],
            rotation: 0.0,
            divergence: 0.0,
            shear: [0.0; 2],
            amplitude: 1.0,
            threshold: 0.0,
            cells: 0.0,
        };
        for [rotation, divergence, stretch, slant] in [
            [0.0, 0.0, 0.3, 0.0],
            [0.02, 0.01, 0.05, -0.04],
            [0.2, 0.0, 0.1, 0.1],
            [0.0, 0.05, 0.0, 0.4],
        ] {
            let weather = Weather { rotation, divergence, shear: [stretch, slant], ..calm };
            let wind = |[x, y]: [f64; 2]| {
                [
                    (divergence + stretch) * x + (slant - rotation) * y,
                    (slant + rotation) * x + (divergence - stretch) * y,
                ]
            };
            let along = |p: [f64; 2], v: [f64; 2], by: f64| [p[0] + by * v[0], p[1] + by * v[1]];
            let mut p = [3.0, -7.0];
            const STEPS: usize = 4000;
            for _ in 0..STEPS {
                let by = 5.0 / STEPS as f64;
                let middle = along(p, wind(p), by / 2.0);
                p = along(p, wind(middle), by);
            }
            let [x, y] = Affine::drift(&weather, 5.0).apply(3.0, -7.0);
            assert!((x - p[0]).abs() + (y - p[1]).abs() < 1e-4, "{x} {y}: {p:?}");
        }
        let stretched = Weather { shear: [0.3, 0.0], ..calm };
        let [x, y] = Affine::drift(&stretched, 2.0).apply(3.0, -7.0);
        assert!(
            (x - 3.0 * 0.6_f64.exp()).abs() < 1e-12 && (y + 7.0 * (-0.6_f64).exp()).abs() < 1e-12
        );
    }
}
