//! A document in, a configuration out: each section by itself first, then what they say about each other.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::document::{Document, Section, SectionKind};
use super::keys::KeySection;
use super::problem::{Place, Problems};
use super::reader::{Reader, size};
use super::surroundings::Surroundings;
use super::{
    Config, CopyConfig, DeployerCommon, DeployerConfig, DeployerKind, Dialect, LogFormat, PickupConfig, Settings,
    Severity, conflicts, deployer, entry,
};

pub(super) const DEFAULT: &str = "default";
const DEFAULT_DIRECTORY: &str = "pickup/incoming/services";
const DEFAULT_INTO: &str = "deployed/{pickup}";

/// Makes a configuration of what was read. `surroundings` are settled.
pub(crate) fn resolve(
    document: Document,
    dialect: Dialect,
    file: Option<&Path>,
    surroundings: &Surroundings,
) -> Config {
    let Document { sections, mut problems } = document;
    let mut config = Config { file: file.map(Path::to_path_buf), dialect, ..Config::default() };
    config.settings.state_dir = surroundings.default_state_dir();
    let (mut pickups, mut deployers) = (Named::default(), Named::default());
    // What was meant to be an entry, but is none, must not bring up the default one in its place.
    let mut has_entry = false;
    for section in &sections {
        match &section.kind {
            SectionKind::Pickup(name) => pickups.add(name, section, &mut problems),
            SectionKind::Deployer(name) => deployers.add(name, section, &mut problems),
            SectionKind::NoEntries => has_entry = true,
            SectionKind::Malformed => {
                malformed(section, &mut problems);
                has_entry = true;
            }
            SectionKind::Foreign => has_entry |= !foreign(section, dialect, &mut problems),
            SectionKind::Settings if section.is_broken => {}
            SectionKind::Settings => {
                let reader = Reader::new(section, dialect, surroundings, &mut problems);
                read_settings(reader, &mut config.settings);
            }
        }
    }
    if let Some(fixed) = surroundings.fixed_state_dir() {
        config.settings.state_dir = fixed;
    }
    for (name, section) in deployers.usable() {
        let reader = Reader::new(section, dialect, surroundings, &mut problems);
        config.deployers.extend(deployer::read(reader, name).map(|deployer| (name.to_owned(), deployer)));
    }
    for (name, section) in pickups.usable() {
        let reader = Reader::new(section, dialect, surroundings, &mut problems);
        config.pickups.extend(entry::read(reader, name).map(|entry| (name.to_owned(), entry)));
    }
    if !has_entry && pickups.order.is_empty() {
        let directory = surroundings.base().join(DEFAULT_DIRECTORY);
        config.pickups.insert(DEFAULT.into(), PickupConfig::new(DEFAULT, directory));
    }
    if !deployers.sections.contains_key(DEFAULT) {
        add_default_deployer(&mut config, surroundings);
    }
    conflicts::check(&mut config, &pickups.sections, &deployers.sections, surroundings, &mut problems);
    config.problems = problems.into_vec();
    config
}

/// The sections of one kind by name.
#[derive(Default)]
struct Named<'d> {
    sections: HashMap<&'d str, &'d Section>,
    /// In file order.
    order: Vec<&'d str>,
    broken: HashSet<&'d str>,
}

impl<'d> Named<'d> {
    fn add(&mut self, name: &'d str, section: &'d Section, problems: &mut Problems) {
        if section.is_broken {
            self.broken.insert(name);
        }
        let Some(first) = self.sections.get(name) else {
            self.sections.insert(name, section);
            self.order.push(name);
            return;
        };
        // `a.b` and `"a.b"` are two names to TOML, and one to us.
        if !first.is_broken && !section.is_broken {
            let message = format!("the section stands twice, first in line {}", first.at.line);
            problems.error(Place::section(&section.name, section.at), message);
        }
        self.broken.insert(name);
    }

    fn usable(&self) -> impl Iterator<Item = (&'d str, &'d Section)> {
        let named = self.order.iter().filter_map(|name| Some((*name, *self.sections.get(name)?)));
        named.filter(|(name, _)| !self.broken.contains(name))
    }
}

const SECTIONS: [&str; 3] = ["hot-deploy.user.<name>", "deployer.<name>", "pickup"];

fn malformed(section: &Section, problems: &mut Problems) {
    if section.is_broken {
        return;
    }
    let name = section.name.trim_end_matches('.');
    let place = Place::section(&section.name, section.at);
    match name {
        "hot-deploy" | "hot-deploy.user" => {
            problems.error(place, "the section needs a name: `[hot-deploy.user.<name>]`");
        }
        "deployer" => problems.error(place, "the section needs a name: `[deployer.<name>]`"),
        _ => problems.unknown(Severity::Error, place, "is no section", name, SECTIONS),
    }
}

/// Reports a section that is none of ours; whether it may be there.
fn foreign(section: &Section, dialect: Dialect, problems: &mut Problems) -> bool {
    let place = Place::section(&section.name, section.at);
    match dialect {
        Dialect::Zato => {
            // Zato's own names are not to be taken for misspelt ones of ours.
            let first = section.name.split('.').next().unwrap_or_default();
            let is_zato = matches!(first, "json" | "xml" | "csv" | "user_conf" | "static");
            let known = SECTIONS.iter().copied().filter(|_| !is_zato);
            let message = "belongs to another part of Zato and has no effect here";
            problems.unknown(Severity::Warning, place, message, &section.name, known);
            true
        }
        Dialect::Toml if section.is_broken => false,
        Dialect::Toml => {
            problems.unknown(Severity::Error, place, "is no section", &section.name, SECTIONS);
            false
        }
    }
}

pub(super) const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

fn read_settings(mut reader: Reader<'_>, settings: &mut Settings) {
    reader.check_names(&[KeySection::Settings]);
    if let Some(path) = reader.path("state_dir") {
        settings.state_dir = path;
    }
    if let Some(log) = reader.text("log") {
        if log.trim().is_empty() {
            reader.error("log", "expected a filter such as `info`");
        } else {
            settings.log = log;
        }
    }
    settings.log_format = reader.choice("log_format", settings.log_format, LOG_FORMATS);
    settings.keep_history = reader.interval("keep_history", settings.keep_history);
    settings.store_max = reader.read("store_max", size).unwrap_or(settings.store_max);
}

/// Where an entry deploys to `default` and nobody says what that is, it is a copy beside the configuration.
fn add_default_deployer(config: &mut Config, surroundings: &Surroundings) {
    let is_registered = surroundings.registered().iter().any(|name| name == DEFAULT);
    let mut targets = config.pickups.values().flat_map(|pickup| &pickup.deploy_to);
    if is_registered || !targets.any(|name| name == DEFAULT) {
        return;
    }
    let into = surroundings.base().join(DEFAULT_INTO).to_string_lossy().into_owned();
    let kind = DeployerKind::Copy(CopyConfig { into, mode: None, owner: None, strip: 0, durable: true });
    let deployer = DeployerConfig { name: DEFAULT.into(), kind, common: DeployerCommon::default() };
    config.deployers.insert(DEFAULT.into(), deployer);
}
