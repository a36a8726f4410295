//! What entries and deployers must not say about each other: loops, two owners of one directory, unknown names.
//!
//! Paths are compared by name alone, `..` taken back; symbolic links are not followed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::document::{Position, Section};
use super::problem::{Place, Problems, shorten};
use super::resolve::DEFAULT;
use super::surroundings::{Surroundings, normalised};
use super::{Config, DeployerConfig, DeployerKind, ListenAddress, PickupConfig, Severity, UnitKind};

type Sections<'d> = HashMap<&'d str, &'d Section>;

/// Checks everything, and takes out of `config` what cannot run.
pub(crate) fn check(
    config: &mut Config,
    pickups: &Sections<'_>,
    deployers: &Sections<'_>,
    surroundings: &Surroundings,
    problems: &mut Problems,
) {
    let mut check =
        Check { pickups, deployers, problems, broken_pickups: BTreeSet::new(), broken_deployers: BTreeSet::new() };
    check.names(config);
    let targets = targets(config, &check.broken_pickups);
    check.one_owner(&targets);
    check.one_user(config, &targets);
    check.apart(config, &targets);
    check.shared(config, &targets);
    check.modules(config);
    check.outside_state(config, &targets);
    check.loops(config, &targets);
    check.one_remote(config);
    check.listeners(config);
    check.addresses(config);
    check.sent_together(config);
    check.deploy_to(config, surroundings);
    let Check { broken_pickups, broken_deployers, .. } = check;
    config.pickups.retain(|name, _| !broken_pickups.contains(name));
    config.deployers.retain(|name, _| !broken_deployers.contains(name));
}

/// A directory that a deployer writes to, for the entry that makes it so.
struct Target {
    directory: PathBuf,
    deployer: String,
    /// Empty for a deployer that no entry uses.
    pickup: String,
}

fn into(deployer: &DeployerConfig) -> Option<&str> {
    match &deployer.kind {
        DeployerKind::Copy(copy) => Some(&copy.into),
        DeployerKind::Release(release) => Some(&release.into),
        DeployerKind::Process(process) => process.into.as_deref(),
        DeployerKind::Exec(_) | DeployerKind::Module(_) | DeployerKind::Http(_) => None,
    }
}

/// The names in its directory that are the deployer's own, if it keeps releases there.
fn own_names(deployer: &DeployerConfig) -> Option<[&str; 2]> {
    match &deployer.kind {
        DeployerKind::Release(release) => Some(["releases", &release.link]),
        DeployerKind::Process(_) => Some(["releases"; 2]),
        DeployerKind::Copy(_) | DeployerKind::Exec(_) | DeployerKind::Module(_) | DeployerKind::Http(_) => None,
    }
}

/// Every directory that is written to by way of an entry that is not broken, or of none.
fn targets(config: &Config, broken_pickups: &BTreeSet<String>) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut used = BTreeSet::new();
    for pickup in config.pickups.values().filter(|pickup| !broken_pickups.contains(&pickup.name)) {
        for deployer in pickup.deploy_to.iter().filter_map(|name| config.deployers.get(name)) {
            let Some(into) = into(deployer) else { continue };
            used.insert(deployer.name.as_str());
            let directory = normalised(Path::new(&into.replace("{pickup}", &pickup.name)));
            targets.push(Target { directory, deployer: deployer.name.clone(), pickup: pickup.name.clone() });
        }
    }
    for deployer in config.deployers.values().filter(|deployer| !used.contains(deployer.name.as_str())) {
        if let Some(into) = into(deployer).filter(|into| !into.contains("{pickup}")) {
            let directory = normalised(Path::new(into));
            targets.push(Target { directory, deployer: deployer.name.clone(), pickup: String::new() });
        }
    }
    targets
}

struct Check<'a, 'd> {
    pickups: &'a Sections<'d>,
    deployers: &'a Sections<'d>,
    problems: &'a mut Problems,
    broken_pickups: BTreeSet<String>,
    broken_deployers: BTreeSet<String>,
}

impl Check<'_, '_> {
    /// A name becomes a part of the path where `{pickup}` stands, so it must be able to.
    fn names(&mut self, config: &Config) {
        for pickup in config.pickups.values() {
            let is_part = !pickup.name.contains(['/', '\\']) && pickup.name != "." && pickup.name != "..";
            let mut deployers = pickup.deploy_to.iter().filter_map(|name| config.deployers.get(name));
            if !is_part && deployers.any(|deployer| into(deployer).is_some_and(|into| into.contains("{pickup}"))) {
                self.pickup_error(pickup, "deploy_to", "the entry's name cannot stand for `{pickup}` in a path");
            }
        }
    }

    /// Two deployers that write to one directory would each remove what the other put there.
    fn one_owner(&mut self, targets: &[Target]) {
        let mut owners: BTreeMap<&Path, BTreeSet<(Position, &str)>> = BTreeMap::new();
        for target in targets {
            let owner = (self.deployer_position(&target.deployer), target.deployer.as_str());
            owners.entry(&target.directory).or_default().insert(owner);
        }
        for (directory, owners) in owners {
            let mut owners = owners.into_iter();
            let Some((_, first)) = owners.next() else { continue };
            for (_, later) in owners {
                let message = format!("{} is written to by deployer `{first}` already", directory.display());
                self.deployer_error(later, "into", message);
            }
        }
    }

    /// Releases of two entries in one directory would take each other's place.
    fn one_user(&mut self, config: &Config, targets: &[Target]) {
        let mut users: BTreeMap<(&Path, &str), BTreeSet<(Position, &str)>> = BTreeMap::new();
        for target in targets.iter().filter(|target| !target.pickup.is_empty()) {
            if config.deployers.get(&target.deployer).is_some_and(|deployer| own_names(deployer).is_some()) {
                let user = (self.pickup_position(&target.pickup, "deploy_to"), target.pickup.as_str());
                users.entry((&target.directory, &target.deployer)).or_default().insert(user);
            }
        }
        for ((directory, _), users) in users {
            let mut users = users.into_iter().map(|(_, user)| user);
            let Some(first) = users.next() else { continue };
            for pickup in users.filter_map(|user| config.pickups.get(user)) {
                let message = format!(
                    "{} holds the releases of entry `{}` already: they would take each other's place; `{{pickup}}` in \
                     `into` keeps them apart",
                    directory.display(),
                    shorten(first)
                );
                self.pickup_error(pickup, "deploy_to", message);
            }
        }
    }

    /// What lies in another deployer's releases goes with them; what lies in a directory that another one fills may be
    /// replaced by it.
    fn apart(&mut self, config: &Config, targets: &[Target]) {
        let directories: BTreeMap<&Path, &str> =
            targets.iter().map(|target| (target.directory.as_path(), target.deployer.as_str())).collect();
        let mut said = BTreeSet::new();
        for (inner, deployer) in &directories {
            let around = inner.ancestors().skip(1).find_map(|above| directories.get_key_value(above));
            let Some((outer, other)) = around.filter(|(_, other)| *other != deployer) else { continue };
            let Some(owner) = config.deployers.get(*other) else { continue };
            let below = inner.strip_prefix(outer).ok().and_then(|below| below.iter().next());
            let is_in_release =
                own_names(owner).is_some_and(|own| below.is_some_and(|name| own.iter().any(|own| name == *own)));
            if is_in_release {
                let message = format!("{} lies in the releases of deployer `{other}`", inner.display());
                self.deployer_error(deployer, "into", message);
            } else if own_names(owner).is_none() && said.insert((*deployer, *other)) {
                let message = format!(
                    "{} lies in {}, which deployer `{other}` writes to: files of the same name would replace each other",
                    inner.display(),
                    outer.display()
                );
                let at = self
                    .deployers
                    .get(*deployer)
                    .map_or(Position { line: 1, column: 1 }, |section| section.position_of("into"));
                self.problems.warning(Place::key(&format!("deployer.{deployer}"), "into", at), message);
            }
        }
    }

    /// A module is one file: a tree is none, whatever is in it.
    fn modules(&mut self, config: &Config) {
        for pickup in config.pickups.values().filter(|pickup| pickup.unit == UnitKind::Tree) {
            let deployers = pickup.deploy_to.iter().filter_map(|name| config.deployers.get(name));
            let mut modules = deployers.filter(|deployer| matches!(deployer.kind, DeployerKind::Module(_)));
            let Some(deployer) = modules.next() else { continue };
            let message = format!(
                "deployer `{}` loads single files, never a tree: use `unit = \"file\"`, and an entry of its own with \
                 `patterns = [\"*.so\"]` where there are other files, too",
                shorten(&deployer.name)
            );
            self.pickup_error(pickup, "unit", message);
        }
    }

    /// Two entries may share a directory, but their artifacts may have the same names there.
    fn shared(&mut self, config: &Config, targets: &[Target]) {
        let mut users: BTreeMap<(&Path, &str), Vec<&PickupConfig>> = BTreeMap::new();
        for target in targets {
            if let Some(pickup) = config.pickups.get(&target.pickup) {
                users.entry((&target.directory, &target.deployer)).or_default().push(pickup);
            }
        }
        for ((directory, deployer), users) in users {
            // Said as an error already.
            if config.deployers.get(deployer).is_some_and(|deployer| own_names(deployer).is_some()) {
                continue;
            }
            let message = format!(
                "another entry writes to {} too: files of the same name would replace each other; `{{pickup}}` in `into` \
                 keeps them apart",
                directory.display()
            );
            self.warn_together(users, &message);
        }
    }

    /// The state directory belongs to the engine alone.
    fn outside_state(&mut self, config: &Config, targets: &[Target]) {
        let state = normalised(&config.settings.state_dir);
        for target in targets.iter().filter(|target| target.directory.starts_with(&state)) {
            self.deployer_error(&target.deployer, "into", format!("lies in the state directory {}", state.display()));
        }
        // A child called `.pickup` is left alone by the built-in ignore list.
        let is_ignored = state.file_name().is_some_and(|name| name == ".pickup");
        for pickup in config.pickups.values() {
            for root in pickup.pickup_from.iter().map(|root| normalised(root)) {
                if root.starts_with(&state) {
                    let message = format!("{} lies in the state directory {}", root.display(), state.display());
                    self.pickup_error(pickup, "pickup_from", message);
                } else if state.starts_with(&root) && !is_ignored && sees_below(pickup) {
                    let message = format!("{} contains the state directory {}", root.display(), state.display());
                    self.pickup_error(pickup, "pickup_from", message);
                }
            }
        }
    }

    /// What a deployer writes must not be picked up.
    fn loops(&mut self, config: &Config, targets: &[Target]) {
        let used = targets.iter().filter(|target| !target.pickup.is_empty());
        let written: BTreeMap<&Path, &str> =
            used.map(|target| (target.directory.as_path(), target.deployer.as_str())).collect();
        for pickup in config.pickups.values() {
            for root in pickup.pickup_from.iter().map(|root| normalised(root)) {
                let around = root.ancestors().find_map(|above| written.get_key_value(above));
                // What lies below a path follows it in the order of paths.
                let below = || written.range::<Path, _>((Bound::Excluded(root.as_path()), Bound::Unbounded)).next();
                let below = || below().filter(|(directory, _)| directory.starts_with(&root) && sees_below(pickup));
                let Some((directory, deployer)) = around.or_else(below) else { continue };
                let message = format!(
                    "{} would pick up what deployer `{deployer}` writes to {}",
                    root.display(),
                    directory.display()
                );
                self.pickup_error(pickup, "pickup_from", message);
            }
        }
    }

    /// A working tree has one remote and one branch: two entries that follow it must mean the same.
    fn one_remote(&mut self, config: &Config) {
        let clones = config.pickups.values().filter_map(|pickup| Some((pickup, pickup.git.as_ref()?)));
        let mut clones: Vec<_> = clones
            .filter_map(|(pickup, git)| Some((normalised(pickup.pickup_from.first()?), pickup, git.as_ref())))
            .collect();
        clones.sort_by_key(|(_, pickup, _)| self.pickup_position(&pickup.name, "git_url"));
        let mut first: BTreeMap<(PathBuf, &str), (&PickupConfig, String)> = BTreeMap::new();
        for (directory, pickup, git) in &clones {
            let url = git.url.as_ref().map(|url| url.expose().to_owned());
            for (key, said) in [("git_url", url), ("git_ref", git.reference.clone())] {
                let Some(said) = said else { continue };
                let (other, known) = first.entry((directory.clone(), key)).or_insert_with(|| (pickup, said.clone()));
                if *known != said {
                    let message = format!(
                        "the clone {} has another `{key}` in entry `{}` already; give each its own directory, or leave \
                         `pickup_from` out",
                        directory.display(),
                        shorten(&other.name)
                    );
                    self.pickup_error(pickup, key, message);
                }
            }
        }
    }

    /// An address has one listener, and a listener belongs to one program.
    fn listeners(&mut self, config: &Config) {
        let mut taken: Vec<(ListenAddress, &str, &str)> = Vec::new();
        let mut deployers: Vec<&DeployerConfig> = config.deployers.values().collect();
        deployers.sort_by_key(|deployer| self.deployer_position(&deployer.name));
        for deployer in deployers {
            let DeployerKind::Process(process) = &deployer.kind else { continue };
            let users = config.pickups.values().filter(|pickup| pickup.deploy_to.contains(&deployer.name));
            let mut users: Vec<&str> = users.map(|pickup| pickup.name.as_str()).collect();
            // One that no entry uses yet claims its addresses all the same.
            users.is_empty().then(|| users.push(""));
            for user in users {
                let own = process.listen.values().map(|address| address.of(user)).collect::<Vec<_>>();
                for (at, address) in own.iter().enumerate() {
                    let others = taken.iter().map(|(other, deployer, user)| (other, *deployer, *user));
                    let others = others.chain(own[..at].iter().map(|other| (other, deployer.name.as_str(), user)));
                    let clash = others.into_iter().find(|(other, ..)| address.clashes(other));
                    let Some((_, other, other_user)) = clash else { continue };
                    let of = if other_user.is_empty() { String::new() } else { format!(" for entry `{other_user}`") };
                    let message = format!("{address} is listened on by deployer `{other}`{of} already");
                    self.deployer_error(&deployer.name, "listen", message);
                }
                taken.extend(own.into_iter().map(|address| (address, deployer.name.as_str(), user)));
            }
        }
    }

    /// Two entries that send to one address would replace each other's files, if they have the same names.
    fn sent_together(&mut self, config: &Config) {
        for deployer in config.deployers.values() {
            let DeployerKind::Http(http) = &deployer.kind else { continue };
            if http.url.contains("{pickup}") {
                continue;
            }
            let users = config.pickups.values().filter(|pickup| pickup.deploy_to.contains(&deployer.name));
            let users: Vec<&PickupConfig> = users.collect();
            let message = format!(
                "another entry sends to the address of deployer `{}` too: files of the same name would replace each other; \
                 `{{pickup}}` in `url` keeps them apart",
                shorten(&deployer.name)
            );
            self.warn_together(users, &message);
        }
    }

    /// Warns of each entry whose files may have the names of those of an earlier one.
    fn warn_together(&mut self, mut users: Vec<&PickupConfig>, message: &str) {
        users.sort_by_key(|pickup| self.pickup_position(&pickup.name, "deploy_to"));
        let mut seen = BTreeSet::new();
        let mut is_first = true;
        for pickup in users {
            let endings = endings(pickup);
            if !is_first && !is_apart(endings.as_ref(), &seen) {
                let at = self.pickup_position(&pickup.name, "deploy_to");
                self.problems.warning(Place::key(&section_name(pickup), "deploy_to", at), message);
            }
            is_first = false;
            seen.extend(endings.unwrap_or_else(|| BTreeSet::from([ANY_ENDING])));
        }
    }

    /// Two deployers that send to one address would each replace what the other sent there.
    fn addresses(&mut self, config: &Config) {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        let mut deployers: Vec<&DeployerConfig> = config.deployers.values().collect();
        deployers.sort_by_key(|deployer| self.deployer_position(&deployer.name));
        for deployer in deployers {
            let DeployerKind::Http(http) = &deployer.kind else { continue };
            let first = *taken.entry(&http.url).or_insert(&deployer.name);
            if first != deployer.name {
                let message = format!("deployer `{first}` sends to the same address already");
                self.deployer_error(&deployer.name, "url", message);
            }
        }
    }

    /// Every name in `deploy_to` must be a deployer that works.
    fn deploy_to(&mut self, config: &Config, surroundings: &Surroundings) {
        for pickup in config.pickups.values() {
            for name in &pickup.deploy_to {
                let is_good = config.deployers.contains_key(name) && !self.broken_deployers.contains(name);
                if is_good || surroundings.registered().contains(name) {
                    continue;
                }
                if self.deployers.contains_key(name.as_str()) || self.broken_deployers.contains(name) {
                    self.pickup_error(pickup, "deploy_to", format!("deployer `{name}` is broken"));
                    continue;
                }
                let at = self.pickup_position(&pickup.name, "deploy_to");
                let section = section_name(pickup);
                let place = Place::key(&section, "deploy_to", at);
                let written = self.deployers.keys().copied();
                let registered = surroundings.registered().iter().map(String::as_str);
                let known = written.chain(registered).chain([DEFAULT]);
                let message = format!("there is no deployer `{}`", shorten(name));
                self.problems.unknown(Severity::Error, place, message, name, known);
                self.broken_pickups.insert(pickup.name.clone());
            }
        }
    }

    fn pickup_position(&self, name: &str, key: &str) -> Position {
        self.pickups.get(name).map_or(Position { line: 1, column: 1 }, |section| section.position_of(key))
    }

    /// A deployer that was not written comes last: it gives way to those that were.
    fn deployer_position(&self, name: &str) -> Position {
        const LAST: Position = Position { line: usize::MAX, column: 1 };
        self.deployers.get(name).map_or(LAST, |section| section.at)
    }

    fn pickup_error(&mut self, pickup: &PickupConfig, key: &str, message: impl Into<String>) {
        let section = section_name(pickup);
        let place = Place::key(&section, key, self.pickup_position(&pickup.name, key));
        self.problems.error(place, message);
        self.broken_pickups.insert(pickup.name.clone());
    }

    fn deployer_error(&mut self, deployer: &str, key: &str, message: impl Into<String>) {
        if !self.broken_deployers.insert(deployer.to_owned()) {
            return;
        }
        let name = format!("deployer.{deployer}");
        let at =
            self.deployers.get(deployer).map_or(Position { line: 1, column: 1 }, |section| section.position_of(key));
        self.problems.error(Place::key(&name, key, at), message);
    }
}

/// Whether the entry looks into directories below its own. All of a working tree is git's.
fn sees_below(pickup: &PickupConfig) -> bool {
    pickup.recursive || pickup.unit != UnitKind::File || pickup.git.is_some()
}

/// Stands for files of any name.
const ANY_ENDING: &str = "";

/// The endings that all files of an entry have, if its patterns are all of the form `*.ending`.
fn endings(pickup: &PickupConfig) -> Option<BTreeSet<&str>> {
    let is_word = |ending: &&str| !ending.is_empty() && ending.chars().all(char::is_alphanumeric);
    pickup.patterns.iter().map(|pattern| pattern.strip_prefix("*.").filter(is_word)).collect()
}

/// Whether files with these endings cannot have the names of those seen before.
fn is_apart(endings: Option<&BTreeSet<&str>>, seen: &BTreeSet<&str>) -> bool {
    endings.is_some_and(|endings| !seen.contains(ANY_ENDING) && endings.is_disjoint(seen))
}

/// The entry's section, as problems name it.
fn section_name(pickup: &PickupConfig) -> String {
    format!("hot-deploy.user.{}", pickup.name)
}
