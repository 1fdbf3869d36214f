//! Lead times: what tells a store of forecasts from one of frames.

use super::store::{Store, Stored};

/// What the coordinate of lead times is called.
pub(super) const LEADS: [&str; 5] =
    ["prediction_timedelta", "lead_time", "lead", "step", "forecast_period"];

/// The coordinate of the dim `name`, if that is of lead times.
pub(super) fn coordinate(store: &Store, name: &str) -> Option<Stored> {
    let array = store.array(name).ok().flatten().filter(|array| array.dims == [name])?;
    let span = array.text("dtype").starts_with("timedelta64")
        || array.text("standard_name") == "forecast_period";
    (span || LEADS.contains(&name)).then_some(array)
}
