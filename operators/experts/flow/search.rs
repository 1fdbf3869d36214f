//! Inverse search: each patch of the newest image descends to its place in the previous one.
//!
//! The template and its gradients stay fixed, so that a patch's Hessian is inverted once
//! (Kroeger et al. 2016, section 2.1; Baker and Matthews 2001).

use super::plane::Plane;

/// The side of a patch.
pub(super) const PATCH: usize = 8;
const AREA: f32 = (PATCH * PATCH) as f32;
/// How far a patch may look beyond the border.
const MARGIN: usize = 16;

/// A regular raster of patches and the displacement found for each.
pub(super) struct Patches {
    rows: usize,
    columns: usize,
    stride: usize,
    /// `[dx, dy]` of each patch, row-major.
    flow: Vec<[f32; 2]>,
}

impl Patches {
    /// The first pixel of patch `i` along a side of `n` pixels; the last patch is flush with the border.
    fn origin(&self, i: usize, n: usize) -> usize {
        (i * self.stride).min(n - PATCH)
    }
}

/// A patch of the newest image, ready to be compared.
struct Template {
    value: [[f32; PATCH]; PATCH],
    dx: [[f32; PATCH]; PATCH],
    dy: [[f32; PATCH]; PATCH],
    /// Means of the two derivatives over the patch.
    mean: [f32; 2],
    /// Inverse of the Hessian of the mean-free patch `[xx, xy, yy]`; zeros where there is no texture.
    inverse: [f32; 3],
}

/// What a comparison at some displacement says: the mean-free squared difference and its slope.
struct Fit {
    error: f32,
    slope: [f32; 2],
}

/// The previous image continued by its border, so that comparisons need no bounds in their inner loop.
struct Scene {
    height: usize,
    width: usize,
    data: Vec<f32>,
}

/// Displacements of all patches of `to` into `from`, from the dense guess `flow`.
pub(super) fn search(
    to: &Plane,
    from: &Plane,
    flow: &[Plane; 2],
    stride: usize,
    iterations: usize,
) -> Patches {
    let count = |n: usize| (n - PATCH).div_ceil(stride) + 1;
    let mut patches =
        Patches { rows: count(to.height), columns: count(to.width), stride, flow: Vec::new() };
    let (rows, columns) = (patches.rows, patches.columns);
    let scene = Scene::of(from);
    let (gx, gy) = to.gradients();
    let mut templates = Vec::with_capacity(rows * columns);
    for r in 0..rows {
        for c in 0..columns {
            let (y, x) = (patches.origin(r, to.height), patches.origin(c, to.width));
            templates.push(Template::at(to, &gx, &gy, y, x));
            let centre = (y + PATCH / 2) * to.width + x + PATCH / 2;
            patches.flow.push([flow[0].data[centre], flow[1].data[centre]]);
        }
    }
    // Good matches spread down and to the right, then back again.
    for pass in 0..2 {
        for i in 0..rows * columns {
            let i = if pass == 0 { i } else { rows * columns - 1 - i };
            let (r, c) = (i / columns, i % columns);
            let beside = if pass == 0 {
                [(c > 0).then(|| i - 1), (r > 0).then(|| i - columns)]
            } else {
                [(c + 1 < columns).then(|| i + 1), (r + 1 < rows).then(|| i + columns)]
            };
            let (y, x) = (patches.origin(r, to.height) as f32, patches.origin(c, to.width) as f32);
            let look = |d: [f32; 2]| templates[i].compare(&scene, y + d[1], x + d[0]);
            let mut start = patches.flow[i];
            let mut fit = look(start);
            for j in beside.into_iter().flatten() {
                let candidate = patches.flow[j];
                let other = look(candidate);
                if other.error < fit.error {
                    (start, fit) = (candidate, other);
                }
            }
            patches.flow[i] = templates[i].descend(start, fit, iterations.div_ceil(2), look);
        }
    }
    patches
}

impl Template {
    fn at(image: &Plane, gx: &Plane, gy: &Plane, y: usize, x: usize) -> Self {
        let cut = |plane: &Plane| -> [[f32; PATCH]; PATCH] {
            std::array::from_fn(|r| {
                let row = &plane.row(y + r)[x..x + PATCH];
                std::array::from_fn(|c| row[c])
            })
        };
        let (value, dx, dy) = (cut(image), cut(gx), cut(gy));
        let sum = |f: &dyn Fn(usize, usize) -> f32| -> f32 {
            (0..PATCH * PATCH).map(|i| f(i / PATCH, i % PATCH)).sum()
        };
        let mean = [sum(&|r, c| dx[r][c]) / AREA, sum(&|r, c| dy[r][c]) / AREA];
        let xx = sum(&|r, c| (dx[r][c] - mean[0]).powi(2));
        let yy = sum(&|r, c| (dy[r][c] - mean[1]).powi(2));
        let xy = sum(&|r, c| (dx[r][c] - mean[0]) * (dy[r][c] - mean[1]));
        let det = xx * yy - xy * xy;
        // An edge or a flat patch does not determine its own motion: it takes its neighbours'.
        let inverse = if det > 1e-4 * (xx + yy).powi(2) && xx + yy > 1e-3 {
            [yy / det, -xy / det, xx / det]
        } else {
            [0.0; 3]
        };
        Self { value, dx, dy, mean, inverse }
    }

    /// Compares with the scene where the patch's first pixel lies at `(y, x)`.
    fn compare(&self, scene: &Scene, y: f32, x: f32) -> Fit {
        let (row, fy) = scene.place(y, scene.height);
        let (column, fx) = scene.place(x, scene.width);
        let weights = [(1.0 - fy) * (1.0 - fx), (1.0 - fy) * fx, fy * (1.0 - fx), fy * fx];
        // One accumulator a column keeps the sums in vector registers, and their order fixed.
        let (mut sum, mut square, mut along, mut down) =
            ([0.0_f32; PATCH], [0.0_f32; PATCH], [0.0_f32; PATCH], [0.0_f32; PATCH]);
        for r in 0..PATCH {
            let a: &[f32; PATCH + 1] = scene.data[(row + r) * scene.width + column..]
                .first_chunk()
                .expect("inside the margin");
            let b: &[f32; PATCH + 1] = scene.data[(row + r + 1) * scene.width + column..]
                .first_chunk()
                .expect("inside the margin");
            for c in 0..PATCH {
                let value = weights[0] * a[c]
                    + weights[1] * a[c + 1]
                    + weights[2] * b[c]
                    + weights[3] * b[c + 1];
                let d = value - self.value[r][c];
                sum[c] += d;
                square[c] += d * d;
                along[c] += d * self.dx[r][c];
                down[c] += d * self.dy[r][c];
            }
        }
        let [sum, square, along, down] =
            [sum, square, along, down].map(|lanes| lanes.iter().sum::<f32>());
        Fit {
            error: square - sum * sum / AREA,
            slope: [along - sum * self.mean[0], down - sum * self.mean[1]],
        }
    }

    /// Gauss-Newton descent from `start`, damped: a step that does not lower the error is tried again at half its length.
    fn descend(
        &self,
        start: [f32; 2],
        fit: Fit,
        steps: usize,
        look: impl Fn([f32; 2]) -> Fit,
    ) -> [f32; 2] {
        let [xx, xy, yy] = self.inverse;
        let (mut best, mut fit) = (start, fit);
        if xx == 0.0 && yy == 0.0 {
            return best;
        }
        // Whole steps overshoot on real radar: half steps carry it forward a
        // little better.
        let mut damping = 0.5;
        for _ in 0..steps {
            let [sx, sy] = fit.slope;
            let step = [damping * (xx * sx + xy * sy), damping * (xy * sx + yy * sy)];
            let next = [best[0] - step[0], best[1] - step[1]];
            let short = step[0].hypot(step[1]) < 0.02;
            // A patch must not leave its own surroundings: there it would find another's texture.
            let strays = (next[0] - start[0]).hypot(next[1] - start[1]) > PATCH as f32;
            let there = if strays { None } else { Some(look(next)) };
            match there {
                Some(there) if there.error < fit.error => (best, fit) = (next, there),
                _ => damping *= 0.5,
            }
            if short {
                break;
            }
        }
        best
    }
}

impl Scene {
    fn of(image: &Plane) -> Self {
        let (height, width) = (image.height + 2 * MARGIN, image.width + 2 * MARGIN);
        let mut data = Vec::with_capacity(height * width);
        for y in 0..height {
            let row = image.row(y.saturating_sub(MARGIN).min(image.height - 1));
            data.extend((0..width).map(|x| row[x.saturating_sub(MARGIN).min(image.width - 1)]));
        }
        Self { height, width, data }
    }

    /// The scene's pixel and fraction for image coordinate `at`, kept where a whole patch and its next pixel fit.
    fn place(&self, at: f32, n: usize) -> (usize, f32) {
        let at = (at + MARGIN as f32).max(0.0).min((n - PATCH - 2) as f32);
        (at as usize, at - (at as usize) as f32)
    }
}

/// Dense flow: at each pixel the mean over the patches that cover it, the better matching ones weighing more.
pub(super) fn densify(to: &Plane, from: &Plane, patches: &Patches) -> [Plane; 2] {
    let (height, width) = (to.height, to.width);
    let scene = Scene::of(from);
    let mut flow = [Plane::zeros(height, width), Plane::zeros(height, width)];
    let mut total = vec![0.0_f32; height * width];
    for (i, d) in patches.flow.iter().enumerate() {
        let (y, x) = (
            patches.origin(i / patches.columns, height),
            patches.origin(i % patches.columns, width),
        );
        let (row, fy) = scene.place(y as f32 + d[1], scene.height);
        let (column, fx) = scene.place(x as f32 + d[0], scene.width);
        for r in 0..PATCH {
            let a = &scene.data[(row + r) * scene.width + column..][..PATCH + 1];
            let b = &scene.data[(row + r + 1) * scene.width + column..][..PATCH + 1];
            let at = (y + r) * width + x;
            let value = &to.data[at..][..PATCH];
            for c in 0..PATCH {
                let top = a[c] + fx * (a[c + 1] - a[c]);
                let bottom = b[c] + fx * (b[c + 1] - b[c]);
                let weight = 1.0 / (top + fy * (bottom - top) - value[c]).abs().max(1.0);
                flow[0].data[at + c] += weight * d[0];
                flow[1].data[at + c] += weight * d[1];
                total[at + c] += weight;
            }
        }
    }
    for component in &mut flow {
        for (value, total) in component.data.iter_mut().zip(&total) {
            *value /= total;
        }
    }
    flow
}
