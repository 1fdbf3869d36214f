//! What a frame did not measure its latents recall from the frame of the window, nearest in time,
//! that did: a cell that saw a hole says little of what is there, and the window knows more.

use candle_core::{Result, Tensor};

use crate::layers::Boundary;

/// For each frame of a window the frame that each of its latent cells is taken from, row-major.
pub(crate) type Sources = Vec<Vec<usize>>;

/// Where the latents of a window are taken from, of frames `[y][x][channel]` of which `known` says what
/// was measured, and `cells` that are `stride` pixels a side; `None` where each frame keeps its own.
///
/// A cell is recalled where it or a neighbour has a value that is missing and that another frame of the
/// window measured, from a frame of which that is not so; the later of two that are as near. What no
/// frame measured, as past the edge of a radar, is as it always was, and changes nothing.
pub(crate) fn sources(
    frames: &[&[f32]],
    known: impl Fn(f32) -> bool,
    [columns, channels]: [usize; 2],
    stride: usize,
    [h, w]: [usize; 2],
    boundary: Boundary,
) -> Option<Sources> {
    let mut lost = vec![vec![false; h * w]; frames.len()];
    let mut any = false;
    for at in 0..frames.first()?.len() {
        let first = known(frames[0][at]);
        if frames.iter().all(|frame| known(frame[at]) == first) {
            continue;
        }
        any = true;
        let (row, column) = (at / channels / columns, at / channels % columns);
        let cell = row / stride * w + column / stride;
        let holes = lost.iter_mut().zip(frames).filter(|(_, frame)| !known(frame[at]));
        holes.for_each(|(lost, _)| lost[cell] = true);
    }
    if !any {
        return None;
    }
    let near = |lost: &Vec<bool>, cell: usize| {
        let (row, column) = ((cell / w) as isize, (cell % w) as isize);
        let around =
            (row - 1..=row + 1).flat_map(|y| (column - 1..=column + 1).map(move |x| (y, x)));
        around.into_iter().any(|(y, x)| lost[boundary.index(y, h) * w + boundary.index(x, w)])
    };
    let unsure: Vec<Vec<bool>> =
        lost.iter().map(|lost| (0..h * w).map(|cell| near(lost, cell)).collect()).collect();
    let source = |t: usize, cell: usize| {
        let sure = (0..frames.len()).rev().filter(|&from| !unsure[from][cell]);
        sure.min_by_key(|from| from.abs_diff(t)).unwrap_or(t)
    };
    Some((0..frames.len()).map(|t| (0..h * w).map(|cell| source(t, cell)).collect()).collect())
}

/// The latents of a batch of windows, oldest first, each `(B, h, w, latent)`, with what they recall.
/// Gradients reach the frames that it is recalled from.
///
/// # Errors
/// When the latents differ in their shapes.
pub(crate) fn recall(latents: Vec<Tensor>, sources: &[Option<Sources>]) -> Result<Vec<Tensor>> {
    if latents.is_empty() || sources.iter().all(Option::is_none) {
        return Ok(latents);
    }
    let (b, h, w, depth) = latents[0].dims4()?;
    let all = Tensor::cat(&latents, 0)?.reshape((latents.len() * b * h * w, depth))?;
    let one = |(t, own): (usize, &Tensor)| {
        let from = |i: usize, cell: usize| {
            let source = sources[i].as_ref().map_or(t, |sources| sources[t][cell]);
            ((source * b + i) * h * w + cell) as u32
        };
        let every: Vec<u32> =
            (0..b * h * w).map(|place| from(place / (h * w), place % (h * w))).collect();
        let index = Tensor::from_vec(every, b * h * w, own.device())?;
        all.index_select(&index, 0)?.reshape((b, h, w, depth))
    };
    latents.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const NONE: f32 = f32::NAN;

    #[test]
    fn a_hole_is_recalled_from_the_nearest_frame_that_measured_there() {
        // A row of six cells, one pixel each; the last pixel is never measured.
        let frames: [&[f32]; 4] = [
            &[1.0, 1.0, 1.0, 1.0, 1.0, NONE],
            &[NONE, 2.0, 2.0, 2.0, 2.0, NONE],
            &[NONE, 3.0, 3.0, NONE, 3.0, NONE],
            &[4.0, 4.0, 4.0, 4.0, 4.0, NONE],
        ];
        let of = |boundary| sources(&frames, |v| !v.is_nan(), [6, 1], 1, [1, 6], boundary);
        let own = |t: usize| vec![t; 6];
        let open = of(Boundary::Open).unwrap();
        assert_eq!(open[0], own(0));
        // Of the two frames that are as near the later one, where it is sure; neighbours of holes are unsure.
        assert_eq!(open[1], [0, 0, 1, 1, 1, 1]);
        assert_eq!(open[2], [3, 3, 3, 3, 3, 2]);
        assert_eq!(open[3], own(3));
        assert_eq!(of(Boundary::Periodic).unwrap()[1], [0, 0, 1, 1, 1, 0]);
        let whole = [frames[0], frames[3]];
        assert_eq!(sources(&whole, |v| !v.is_nan(), [6, 1], 1, [1, 6], Boundary::Open), None);
        // Where every frame has a hole, each keeps its own.
        let holes: [&[f32]; 2] = [&[NONE, 1.0, 1.0], &[1.0, 1.0, NONE]];
        let kept = sources(&holes, |v| !v.is_nan(), [3, 1], 1, [1, 3], Boundary::Open).unwrap();
        assert_eq!(kept, [[1, 0, 0], [1, 1, 0]]);
    }

    #[test]
    fn latents_are_recalled_window_by_window() {
        let device = &Device::Cpu;
        let latent = |t: u32| {
            let values: Vec<f32> = (0..2 * 3 * 2).map(|at| (100 * t + at) as f32).collect();
            Tensor::from_vec(values, (2, 1, 3, 2), device).unwrap()
        };
        let latents = vec![latent(0), latent(1)];
        let sources = [None, Some(vec![vec![0, 0, 1], vec![0, 1, 1]])];
        let recalled = recall(latents.clone(), &sources).unwrap();
        let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let [first, second] = [0, 1].map(|t| flat(&recalled[t]));
        assert_eq!(first, [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 110., 111.]);
        assert_eq!(second, [100., 101., 102., 103., 104., 105., 6., 7., 108., 109., 110., 111.]);
        let same = recall(latents.clone(), &[None, None]).unwrap();
        assert_eq!(flat(&same[1]), flat(&latents[1]));
    }
}
