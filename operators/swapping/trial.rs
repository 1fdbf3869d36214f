//! A trial: the candidate's forecasts beside those that are served, over the same frames.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use differential_dataflow::VecCollection;
use differential_dataflow::difference::Semigroup;
use physicnet_stream::{Forecast, Product};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;

use crate::scoring::{Pair, Sums};

/// What the incumbent's product is called beside that of a candidate, which bears its model's id.
const INCUMBENT: &str = "incumbent of ";

/// Extension trait: puts two networks' forecasts side by side.
pub trait Rival<'scope> {
    /// For every forecast of a candidate one that holds both, of the same sensor and reference
    /// time and under the same epoch: what scoring needs to hold them against the same frames.
    fn beside(
        self,
        candidates: StreamVec<'scope, u64, Forecast>,
    ) -> StreamVec<'scope, u64, Forecast>;
}

impl<'scope> Rival<'scope> for StreamVec<'scope, u64, Forecast> {
    fn beside(
        self,
        candidates: StreamVec<'scope, u64, Forecast>,
    ) -> StreamVec<'scope, u64, Forecast> {
        self.binary_frontier(candidates, Pipeline, Pipeline, "Beside", move |_cap, _info| {
            let mut epochs = BTreeMap::<u64, _>::new();
            move |(served, served_frontier), (tried, tried_frontier), output| {
                let port = output.output_index();
                tried.for_each_stamp(|cap, batches| {
                    let Some(cap) = cap.retain_least(port) else { return };
                    let (_, _, tried) =
                        epochs.entry(*cap.time()).or_insert((cap, Vec::new(), Vec::new()));
                    tried.extend(batches.flat_map(|batch| batch.drain(..)));
                });
                served.for_each_stamp(|cap, batches| {
                    let Some(cap) = cap.retain_least(port) else { return };
                    let (_, served, _) =
                        epochs.entry(*cap.time()).or_insert((cap, Vec::new(), Vec::new()));
                    served.extend(batches.flat_map(|batch| batch.drain(..)));
                });
                while let Some(epoch) = epochs.first_entry() {
                    let time = epoch.key();
                    if served_frontier.less_equal(time) || tried_frontier.less_equal(time) {
                        break;
                    }
                    let (cap, served, tried): (_, Vec<Forecast>, Vec<Forecast>) = epoch.remove();
                    let rivals = tried.iter().filter_map(|candidate| {
                        let at = |f: &&Forecast| {
                            f.reference_time == candidate.reference_time
                                && f.sensor == candidate.sensor
                        };
                        served.iter().find(at).map(|incumbent| both(incumbent, candidate))
                    });
                    output.session(&cap).give_iterator(rivals);
                }
            }
        })
    }
}

fn both(incumbent: &Forecast, candidate: &Forecast) -> Forecast {
    let product = |name: Arc<str>, forecast: &Forecast| Product {
        name,
        data: Arc::clone(&forecast.served().data),
    };
    let own = Arc::clone(&candidate.model);
    let products =
        vec![product(format!("{INCUMBENT}{own}").into(), incumbent), product(own, candidate)];
    Forecast { products, ..incumbent.clone() }
}

/// How a trial stands; clones share it. It is complete where worker 0 runs.
#[derive(Clone, Debug, Default)]
pub struct Trial(Arc<Mutex<Standing>>);

#[derive(Debug, Default)]
struct Standing {
    /// The candidate's model.
    candidate: Arc<str>,
    /// By lead and channel: of the incumbent, of the candidate.
    sums: BTreeMap<(u32, u32), [Sums; 2]>,
}

impl Trial {
    /// Forgets what was, and looks at `candidate`.
    pub fn begin(&self, candidate: &Arc<str>) {
        *self.now() = Standing { candidate: Arc::clone(candidate), sums: BTreeMap::new() };
    }

    /// How many frames have verified one of them at the first lead, over all sensors.
    pub fn frames(&self) -> u64 {
        let standing = self.now();
        let pairs = standing.sums.get(&(1, 0)).map(|both| both.each_ref().map(|own| own.pairs));
        pairs.map_or(0, |[incumbent, candidate]| incumbent.max(candidate).max(0) as u64)
    }

    /// Whether the candidate has no forecast, or one beyond all bounds, of a pixel of which the
    /// incumbent has one.
    pub fn is_spoiled(&self) -> bool {
        self.now().sums.values().any(|[incumbent, candidate]| candidate.scored < incumbent.scored)
    }

    /// The candidate's mean squared error over the incumbent's, over the same pixels: the
    /// geometric mean over leads and channels, each from 1e-6 to 1e6, so that one that is exact is
    /// as good as can be and not infinitely good. `None` where no frame has told yet.
    pub fn ratio(&self) -> Option<f64> {
        let standing = self.now();
        let error = |sums: &Sums| sums.squared.get() / sums.scored.max(1) as f64;
        let ratio = |[incumbent, candidate]: &[Sums; 2]| match (error(incumbent), error(candidate))
        {
            (0.0, 0.0) => 1.0,
            (incumbent, candidate) => (candidate / incumbent).clamp(1e-6, 1e6),
        };
        let told = standing.sums.values().filter(|both| both.iter().all(|own| own.scored > 0));
        let logs: Vec<f64> = told.map(|both| ratio(both).ln()).collect();
        (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
    }

    /// What an epoch has verified, all of it: in between, one of the two would lack pixels.
    fn add(&self, verified: &[(Pair, Sums)]) {
        let mut standing = self.now();
        for (pair, sums) in verified {
            let (product, place) = match pair.key.product.strip_prefix(INCUMBENT) {
                Some(of) => (of, 0),
                None => (&*pair.key.product, 1),
            };
            // What is left of an earlier trial says nothing, and no sum holds what is too large:
            // it counts as not forecast.
            if *standing.candidate == *product && !sums.squared.is_large() {
                let at = (pair.key.lead, pair.key.channel);
                standing.sums.entry(at).or_default()[place].plus_equals(sums);
            }
        }
    }

    fn now(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds what was verified of forecasts [side by side](Rival::beside) to `trial`, on worker 0.
pub fn tally<'scope>(
    sums: VecCollection<'scope, u64, Pair, Sums>,
    trial: &Trial,
) -> StreamVec<'scope, u64, ()> {
    let trial = trial.clone();
    let to_first = Exchange::new(|_: &(Pair, u64, Sums)| 0);
    sums.inner.unary_frontier(to_first, "Tally", move |_cap, _info| {
        let mut epochs = BTreeMap::<u64, _>::new();
        move |(input, frontier), output| {
            input.for_each_stamp(|cap, batches| {
                let Some(cap) = cap.retain_least(output.output_index()) else { return };
                let (_, verified) = epochs.entry(*cap.time()).or_insert((cap, Vec::new()));
                let sums = batches.flat_map(|batch| batch.drain(..));
                verified.extend(sums.map(|(pair, _, sums)| (pair, sums)));
            });
            while let Some(epoch) = epochs.first_entry()
                && !frontier.less_equal(epoch.key())
            {
                let (cap, verified): (_, Vec<_>) = epoch.remove();
                trial.add(&verified);
                // Says nothing; it names the container of the output.
                output.session(&cap).give_iterator(std::iter::empty::<()>());
            }
        }
    })
}
