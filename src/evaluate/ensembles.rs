//! Ensembles that are verified: sums over every forecast that has settled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use physicnet_operators::cropping::Transform;
use physicnet_operators::ensemble::members;
use physicnet_operators::scoring::{EnsembleSums, Metrics, Settled};
use physicnet_stream::{Error, Failure, Forecast, Frame};

use super::Rivals;
use crate::engine::Parts;

/// The sums of every ensemble, by channel, product and lead (counted from 1).
pub type Verified = BTreeMap<(usize, Arc<str>, usize), EnsembleSums>;

/// Where the workers of an evaluation put them; nothing where there is no ensemble.
#[derive(Clone, Default)]
pub struct Ensembles(Option<Arc<Mutex<Verified>>>);

impl Ensembles {
    /// Begins to verify ensembles.
    pub fn begin() -> Self {
        Self(Some(Arc::default()))
    }

    /// What was found so far.
    pub fn verified(&self) -> Verified {
        self.0.as_deref().map(|all| held(all).clone()).unwrap_or_default()
    }

    /// Takes in every forecast that has settled; `None` where no ensemble is verified.
    pub(crate) fn settled(
        &self,
        parts: &Parts,
        channels: &[Metrics],
        failure: &Failure,
    ) -> Option<impl FnMut(&Settled) + 'static> {
        let all = Arc::clone(self.0.as_ref()?);
        let transforms = parts.ensemble.as_ref().map(|own| own.transforms.clone());
        let bench = Bench {
            rivals: parts.rivals.clone(),
            channels: channels.to_vec(),
            transforms: transforms.unwrap_or_default(),
            failure: failure.clone(),
        };
        Some(move |settled: &Settled| {
            for (lead, frame) in (1..).zip(&settled.observed) {
                let Some(frame) = frame else { continue };
                let taken = bench.of_lead(&settled.forecast, lead, frame);
                let mut all = held(&all);
                for (channel, product, sums) in taken {
                    all.entry((channel, product, lead)).or_default().add(&sums);
                }
            }
        })
    }
}

fn held(all: &Mutex<Verified>) -> MutexGuard<'_, Verified> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What ensembles are drawn from and held against.
struct Bench {
    rivals: Rivals,
    channels: Vec<Metrics>,
    transforms: Vec<Transform>,
    failure: Failure,
}

impl Bench {
    /// The sums of one lead of a forecast, by channel and product.
    fn of_lead(
        &self,
        forecast: &Forecast,
        lead: usize,
        frame: &Frame,
    ) -> Vec<(usize, Arc<str>, EnsembleSums)> {
        let [_, channels, height, width] = forecast.shape;
        let size = height * width;
        let mut taken = Vec::new();
        for (name, members) in self.ensembles(forecast, lead) {
            for channel in 0..channels {
                let plane = |data: &[f32]| data[channel * size..][..size].to_vec();
                let fields: Vec<Vec<f32>> = members.iter().map(|member| plane(member)).collect();
                let metrics = self.channels.get(channel);
                let thresholds = metrics.map_or(&[][..], |metrics| &metrics.thresholds);
                // Lots that fall alike in every run.
                let salt = frame.valid_time as u64 ^ (channel as u64) << 56;
                let sums = EnsembleSums::of(&fields, &plane(&frame.data), thresholds, salt);
                taken.push((channel, Arc::clone(&name), sums));
            }
        }
        taken
    }

    /// The members of every ensemble at a lead, `[channel, y, x]` each.
    fn ensembles(&self, forecast: &Forecast, lead: usize) -> Vec<(Arc<str>, Vec<Vec<f32>>)> {
        let own = members(forecast, lead, &self.transforms);
        let mut all = vec![(Arc::clone(&forecast.served().name), own)];
        for (name, store) in self.rivals.ensembles(&forecast.sensor) {
            let members = store.ensemble(forecast.reference_time, forecast.cadence, lead);
            let members = members.unwrap_or_else(|error| {
                self.failure.report(Error::new(store.name(), error));
                Vec::new()
            });
            all.push((Arc::clone(name), members));
        }
        all.retain(|(_, members)| !members.is_empty());
        all
    }
}
