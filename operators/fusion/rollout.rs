//! Roll-outs: beyond the network's horizon a forecast goes on from its own leads. They are the newest
//! frames of the next window, encoded as measured ones are, and the experts are asked anew.
//!
//! ```text
//! windows ─► experts ─► fusion ─┬─► forecast of `leads` leads
//!    ▲                          │
//!    └── the last served leads ◄┘
//! ```

use std::rc::Rc;
use std::sync::Arc;

use candle_core::Result;
use physicnet_stream::Forecast;

use crate::admission::Admitted;
use crate::cropping::{Viewed, crop};
use crate::experts::{Consulted, consult};
use crate::quantization::code;
use crate::stage::most;
use crate::windowing::{Flow, Slot, Window};

/// What the experts say of the windows that end with the last leads of `told`, the forecasts from
/// `all`.
pub(super) fn onward(all: &[Consulted], told: &[Forecast]) -> Result<Vec<Consulted>> {
    let windows = all.iter().zip(told).map(|(one, told)| following(&one.window, told));
    let bank = all.first().map(|one| one.bank.clone()).unwrap_or_default();
    consult(windows.collect::<Result<_>>()?, &bank)
}

/// The window whose newest frames are the last leads of what is served of this one.
fn following(window: &Window, told: &Forecast) -> Result<Window> {
    let (seat, newest) = (&window.seat, &window.newest().coded.frame);
    let [horizon, channels, height, width] = told.shape;
    let plane = channels * height * width;
    let fresh = horizon.min(window.slots.len());
    let view = |lead: usize| {
        let data = Rc::new(told.served().data[(lead - 1) * plane..][..plane].to_vec());
        let valid_time = told.valid_time(lead);
        let head = Admitted { valid_time, data, plan: None, ..newest.head.clone() };
        let frame = crop(head, &newest.sensor, &seat.net.config);
        Viewed { frame, seat: seat.clone() }
    };
    let mut views: Vec<_> = (horizon - fresh + 1..=horizon).map(view).collect();
    let at_once = most(fresh, |viewed: &Viewed| (&viewed.seat, viewed.frame.extent));
    let mut slots = window.slots[fresh..].to_vec();
    while !views.is_empty() {
        let rest = views.split_off(at_once(&views[0]).clamp(1, views.len()));
        let slot = |coded| Rc::new(Slot { coded: Rc::new(coded), flow: Flow::default() });
        slots.extend(code(std::mem::replace(&mut views, rest))?.into_iter().map(slot));
    }
    Ok(Window {
        slots,
        seat: seat.clone(),
        revision: window.revision,
        offset: window.offset,
        frame_time: window.frame_time,
        replay_from: window.replay_from,
        replay: window.replay,
        scored: window.scored,
    })
}

/// One forecast of `leads` leads from those of its rounds; of what the later ones do not say, the first
/// has all leads.
pub(super) fn joined(mut rounds: Vec<Forecast>, leads: usize) -> Forecast {
    let later = rounds.split_off(1);
    let mut forecast = rounds.remove(0);
    forecast.shape[0] = leads;
    let count = forecast.shape.iter().product();
    for product in &mut forecast.products {
        let same = |round: &Forecast| {
            let found = round.products.iter().find(|more| more.name == product.name);
            found.map(|more| Arc::clone(&more.data))
        };
        let more: Vec<_> = later.iter().filter_map(same).collect();
        if !more.is_empty() || product.data.len() > count {
            let all = std::iter::once(&product.data).chain(&more);
            let all = all.flat_map(|data| data.iter().copied()).take(count);
            product.data = Arc::new(all.collect());
        }
    }
    forecast
}
