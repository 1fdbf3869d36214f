//! What the attendant promises, whatever is asked, in which order, and when a disk refuses.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use physicnet_operators::model::{ModelConfig, Stored, VariableConfig};
use physicnet_operators::quantization::Usage;
use physicnet_operators::scoring::ScoringConfig;
use physicnet_operators::swapping::Trial;
use physicnet_stream::Variable;
use tempfile::TempDir;

use super::*;
use crate::config::DriftSection;
use crate::swap::{Folder, ask};
use crate::telemetry::Telemetry;

/// A folder of requests, a few models, and the attendant of a job that begins with the first.
struct House {
    at: TempDir,
    swap: Swap,
    attendant: Attendant<fn()>,
    told: Receiver<Change>,
}

/// The file of a model, one for each seed.
fn model(at: &Path, seed: u64) -> (PathBuf, Checkpoint) {
    let variable = Variable { name: "u".into(), units: "m s-1".into() };
    let variables = vec![VariableConfig::for_variable(&variable)];
    let config = ModelConfig { variables, hidden: 4, ..ModelConfig::default() };
    let mut made = Checkpoint::untrained(&config).unwrap();
    made.provenance.seed = seed;
    let path = at.join(format!("{seed}.safetensors"));
    made.save(&path).unwrap();
    let kept = Checkpoint::load(&path).unwrap();
    (path, kept)
}

fn attendant(swap: &Swap) -> (Attendant<fn()>, Receiver<Change>) {
    let (send, told) = channel();
    let wake: fn() = || {};
    let mut attendant = Attendant::new(swap, send, wake, Arc::downgrade(&Arc::new(())));
    attendant.take_over().unwrap();
    (attendant, told)
}

fn house() -> House {
    let at = tempfile::tempdir().unwrap();
    let (own, serving) = model(at.path(), 0);
    let swap = Swap {
        folder: Folder::new(&at.path().join("control"), "job"),
        serving,
        own: Some(own),
        serve: None,
        products: Vec::new(),
        sensors: Vec::new(),
        drift: DriftSection::default(),
        scoring: ScoringConfig::default(),
        trial: Trial::default(),
        telemetry: Telemetry::default(),
    };
    let (attendant, told) = attendant(&swap);
    House { at, swap, attendant, told }
}

impl House {
    fn path(&self) -> &Path {
        self.at.path()
    }

    fn ask(&self, checkpoint: PathBuf, shadow_for: u64) -> u64 {
        // No two requests are of one tick of the file system's clock.
        std::thread::sleep(Duration::from_millis(20));
        self.swap.folder.ask(&Request { checkpoint, shadow_for }).unwrap()
    }

    fn look(&mut self) {
        self.attendant.look().unwrap();
    }

    /// What the file says of the last request.
    fn last(&self) -> (u64, Outcome, String) {
        let Answer { asked, outcome, why } = self.swap.folder.state().unwrap().last.unwrap();
        (asked, outcome, why)
    }

    /// What the dataflow was told since it was asked last.
    fn changes(&self) -> Vec<&'static str> {
        let name = |change| match change {
            Change::Try(_) => "try",
            Change::Take => "take",
            Change::Drop => "drop",
        };
        self.told.try_iter().map(name).collect()
    }

    /// Lets nothing be written as `name`, or again.
    fn refuse(&self, name: &str, refuse: bool) {
        let new = self.path().join("control").join(format!("{name}.new"));
        if refuse { std::fs::create_dir(new) } else { std::fs::remove_dir(new) }.unwrap();
    }

    fn copies(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.path().join("control")).unwrap().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        let mut copies: Vec<_> =
            names.filter_map(|name| Some(name.strip_suffix(".safetensors")?.to_owned())).collect();
        copies.sort();
        copies
    }
}

#[test]
fn a_disk_that_refuses_delays_a_swap_and_loses_none() {
    let mut house = house();
    let (path, new) = model(house.path(), 1);
    house.look();
    let asked = house.ask(path, 5);
    house.refuse("state.json", true);
    house.attendant.look().unwrap_err();
    assert!(house.changes().is_empty(), "a trial that the state does not tell of");
    house.refuse("state.json", false);
    house.look();
    assert_eq!(house.changes(), ["try"]);

    // How the trial stands is no reason to begin it anew.
    house.attendant.untold = true;
    house.refuse("state.json", true);
    house.attendant.look().unwrap_err();
    house.refuse("state.json", false);
    house.look();
    assert!(house.changes().is_empty());

    // It takes over once that is written, and not before.
    house.attendant.state.trial.as_mut().unwrap().shadow_for = 0;
    house.refuse("state.json", true);
    house.attendant.judge().unwrap_err();
    assert!(house.changes().is_empty() && house.attendant.swap.serving.id != new.id);
    house.refuse("state.json", false);
    house.look();
    assert_eq!(house.changes(), ["take"]);
    assert_eq!(house.attendant.swap.serving.id, new.id);
    assert!(matches!(house.last(), (of, Outcome::Taken, _) if of == asked));

    // An answer that could not be given is given later.
    let refused = house.ask(house.path().join("absent"), 5);
    house.refuse("state.json", true);
    house.attendant.look().unwrap_err();
    assert_eq!(house.last().0, asked);
    house.refuse("state.json", false);
    house.look();
    assert!(matches!(house.last(), (of, Outcome::Refused, _) if of == refused));
}

#[test]
fn a_bad_request_ends_no_trial() {
    let mut house = house();
    let ((good, first), (other, second)) = (model(house.path(), 1), model(house.path(), 2));
    let asker = {
        let (folder, request) =
            (house.swap.folder.clone(), Request { checkpoint: good, shadow_for: 5 });
        std::thread::spawn(move || ask(&folder, &request, &mut |_| {}).unwrap())
    };
    while house.swap.folder.asked().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    house.look();
    assert_eq!(house.changes(), ["try"]);
    let bad = house.ask(house.path().join("absent"), 5);
    house.look();
    assert!(house.changes().is_empty());
    assert!(matches!(house.last(), (of, Outcome::Refused, _) if of == bad));
    let state = house.swap.folder.state().unwrap();
    assert_eq!(state.trial.map(|standing| standing.model), Some(first.id));

    // One that takes over at once leaves no time to read what became of the other.
    let at_once = house.ask(other, 0);
    house.look();
    assert_eq!(house.changes(), ["drop", "try", "take"]);
    let (asked, outcome, why) = house.last();
    assert_eq!((asked, outcome), (at_once, Outcome::Taken));
    assert!(why.contains(&*second.id), "{why}");
    house.look();
    assert_eq!(house.swap.folder.asked().unwrap(), None, "what is answered is asked no more");
    assert_eq!(asker.join().unwrap().outcome, Outcome::Superseded);

    // Nor does one hang whose request another one replaced before anybody saw it.
    let (folder, request) =
        (house.swap.folder.clone(), Request { checkpoint: "a".into(), shadow_for: 5 });
    let asker = std::thread::spawn(move || ask(&folder, &request, &mut |_| {}).unwrap());
    while house.swap.folder.asked().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    house.ask(house.path().join("absent"), 5);
    house.look();
    assert_eq!(asker.join().unwrap().outcome, Outcome::Superseded);
}

#[test]
fn a_model_that_a_start_would_refuse_is_refused() {
    let mut house = house();
    house.attendant.swap.drift = DriftSection { alarm: Some(0.3), window: None };
    let (path, new) = model(house.path(), 1);
    house.ask(path.clone(), 0);
    house.look();
    let (_, outcome, why) = house.last();
    assert_eq!(outcome, Outcome::Refused);
    assert!(why.contains("physicnet calibrate"), "{why}");
    // Calibrated it has the same id: a copy of what it was must not stand for it.
    house.swap.folder.keep(&new.id, &std::fs::read(&path).unwrap()).unwrap();
    let usage = Usage { counts: vec![1; new.config.codes], window: 45, usual: 0.2 };
    Checkpoint::describe(&path, &usage).unwrap();
    house.ask(path, 0);
    house.look();
    assert_eq!(house.last().1, Outcome::Taken, "{}", house.last().2);
    let copy = Checkpoint::load(&house.swap.folder.model(&new.id)).unwrap();
    assert_eq!((&copy.id, copy.usage), (&new.id, Some(usage)));
}

#[test]
fn a_model_of_half_weights_is_taken_as_it_is_stored() {
    let mut house = house();
    let (path, new) = model(house.path(), 1);
    Checkpoint { stored: Stored::F16, ..new }.save(&path).unwrap();
    let new = Checkpoint::load(&path).unwrap().id;
    house.ask(path.clone(), 0);
    house.look();
    assert_eq!(house.last().1, Outcome::Taken, "{}", house.last().2);
    assert_eq!(house.attendant.swap.serving.id, new);
    let copy = house.swap.folder.model(&new);
    assert_eq!(std::fs::read(copy).unwrap(), std::fs::read(path).unwrap());
}

#[test]
fn a_network_of_any_size_is_refused_before_it_is_made() {
    let mut house = house();
    let (path, _) = model(house.path(), 1);
    let bytes = std::fs::read(&path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let own = format!("history\\\":{}", ModelConfig::default().history);
    let header = std::str::from_utf8(header).unwrap();
    let huge = header.replace(&own, "history\\\":4000000000");
    assert_ne!(huge, header);
    let length = (huge.len() as u64).to_le_bytes();
    std::fs::write(&path, [&length, huge.as_bytes(), data].concat()).unwrap();
    house.ask(path, 0);
    house.look();
    assert!(house.last().2.contains("it forecasts from 4000000000 frames"), "{}", house.last().2);
}

#[test]
fn a_trial_goes_on_after_a_start_and_not_for_ever() {
    let mut house = house();
    let (path, new) = model(house.path(), 1);
    let asked = house.ask(path.clone(), 5);
    house.look();
    house.look();
    // The copy is tried: the file may be another one by now.
    std::fs::remove_file(path).unwrap();
    (house.attendant, house.told) = attendant(&house.swap);
    house.look();
    assert_eq!(house.changes(), ["try"]);
    assert_eq!(house.swap.folder.state().unwrap().trial.unwrap().model, new.id);
    (house.attendant, house.told) = attendant(&house.swap);
    house.look();
    assert!(house.changes().is_empty());
    let (of, outcome, why) = house.last();
    assert_eq!((of, outcome), (asked, Outcome::Refused));
    assert!(why.contains("ended 2 times"), "{why}");
}

#[test]
fn what_serves_is_what_the_state_says() {
    let mut house = house();
    let own = Arc::clone(&house.swap.serving.id);
    let ids: Vec<_> = (1..4)
        .map(|seed| {
            let (path, new) = model(house.path(), seed);
            house.ask(path, 0);
            house.look();
            new.id
        })
        .collect();
    // The way back, and no more.
    let mut kept = [&*ids[1], &*ids[2]];
    kept.sort_unstable();
    assert_eq!(house.copies(), kept);
    let before = house.swap.folder.state().unwrap().before;
    assert!(before.iter().eq([&own, &ids[0], &ids[1]]), "{before:?}");
    // An instance that waited for its end has begun with what served then.
    let (later, told) = attendant(&house.swap);
    house.told = told;
    assert_eq!(house.changes(), ["try", "take"]);
    assert_eq!(later.swap.serving.id, ids[2]);

    let other = Folder::new(&house.path().join("control"), "another");
    let error = other.state().unwrap_err().to_string();
    assert!(error.contains("the folder of job job"), "{error}");
}
