//! The benches of how changes become known: latency, bursts, overflows, starts.

mod burst;
mod latency;
mod library;
mod overflow;
mod start;
mod subject;
mod watcher;

use self::subject::Subject;
use crate::figure::{Figure, Table, Unit};
use crate::setting::Setting;
use crate::{Bench, Helper};

/// In the order in which they are shown.
pub const BENCHES: &[Bench] = &[
    Bench { name: "latency", about: "From the end of a change to the deployer", run: latency::run },
    Bench { name: "burst", about: "10,000 files copied in at once", run: burst::run },
    Bench { name: "flood", about: "100,000 files copied in at once", run: burst::run_flood },
    Bench { name: "overflow", about: "30,000 files while the watcher is stopped", run: overflow::run },
    Bench { name: "start", about: "First and second start on 100,000 files, memory, idle", run: start::run },
];

/// What this program runs as when a bench starts it as a child.
pub const HELPERS: &[Helper] = &[Helper { name: subject::WATCH, run: subject::watch }];

/// Those that are here, in an order that changes with the round, so that no one is always after the same one.
fn in_turn(setting: &Setting, subjects: &[Subject], round: usize) -> Vec<Subject> {
    let is_here = |subject: &Subject| setting.wants(&subject.name()) && subject.missing(setting).is_none();
    let mut here: Vec<Subject> = subjects.iter().copied().filter(is_here).collect();
    let places = round % here.len().max(1);
    here.rotate_left(places);
    here
}

/// Lists those that are not here, and brings the others into their order.
fn not_measured(setting: &Setting, subjects: &[Subject], table: &mut Table, measure: &str, unit: Unit) {
    for subject in subjects.iter().filter(|subject| setting.wants(&subject.name())) {
        let figure = Figure::new(subject.name(), measure, unit, Vec::new());
        table.figures.push(match subject.missing(setting) {
            Some(why) => figure.note(why),
            None => figure,
        });
    }
}
