//! `pickupd check`: what the configuration means, and what is wrong with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use pickup::config::{
    DeployerConfig, DeployerKind, Dialect, ExecPer, GitConfig, OnRemoved, Problem, Severity, UnitKind, VerifyCheck,
    WatchMode,
};
use pickup::{Config, PickupConfig};
use serde_json::{Value, json};

use crate::cli::{Check, Options};
use crate::exit::{Failure, code, print, print_json};
use crate::paint::{Paint, visible};
use crate::show::{count, span};
use crate::{configuration, log};

/// Carries out `pickupd check`.
pub fn check(options: &Options, check: &Check, paint: Paint) -> Result<ExitCode, Failure> {
    let file = configuration::file(options);
    let surroundings = configuration::surroundings(options);
    let parsed = configuration::parse(file.as_deref(), &surroundings)?;
    let (config, mut problems) = match parsed {
        Ok(config) => (Some(config.clone()), config.problems),
        Err(problems) => (None, problems),
    };
    problems.extend(config.as_ref().and_then(bad_filter));
    problems.extend(config.iter().flat_map(Config::exposures));
    let has_errors = problems.iter().any(|problem| problem.severity == Severity::Error);
    if check.format.json {
        print_json(&value(file.as_deref(), config.as_ref(), &problems))?;
    } else if check.to_toml {
        problems.iter().for_each(|problem| eprintln!("{problem}"));
        if let Some(config) = &config {
            print(&config.to_toml())?;
        }
    } else {
        print(&text(paint, file.as_deref(), config.as_ref(), &problems))?;
    }
    Ok(code(!has_errors))
}

/// The library leaves the filter to whoever logs.
fn bad_filter(config: &Config) -> Option<Problem> {
    let error = log::filter(&config.settings.log).err()?;
    Some(Problem {
        severity: Severity::Error,
        file: config.file.clone(),
        line: 1,
        column: 1,
        section: "pickup".to_owned(),
        key: Some("log".to_owned()),
        message: format!("cannot {error}"),
        nearest: None,
    })
}

fn text(paint: Paint, file: Option<&Path>, config: Option<&Config>, problems: &[Problem]) -> String {
    let mut text = Text { paint, text: String::new() };
    text.top(file, config);
    if let Some(config) = config {
        config.pickups.values().for_each(|pickup| text.pickup(config, pickup));
    }
    text.problems(problems);
    text.text
}

struct Text {
    paint: Paint,
    text: String,
}

impl Text {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn entry(&mut self, label: &str, value: &str) {
        let label = self.paint.faint(&format!("{label:<13}"));
        self.line(&format!("  {label}  {}", visible(value)));
    }

    fn top(&mut self, file: Option<&Path>, config: Option<&Config>) {
        let file = file.map(|file| visible(&file.display().to_string()));
        let dialect = config.map(|config| match config.dialect {
            Dialect::Toml => "TOML",
            Dialect::Zato => "the Zato dialect",
        });
        match (file, dialect) {
            (Some(file), Some(dialect)) => self.line(&format!("{}: read as {dialect}", self.paint.strong(&file))),
            (Some(file), None) => self.line(&format!("{}: cannot be read at all", self.paint.strong(&file))),
            (None, _) => self.line("no configuration file: one entry, `default`"),
        }
        if let Some(config) = config {
            self.entry("state", &config.settings.state_dir.display().to_string());
        }
    }

    fn pickup(&mut self, config: &Config, pickup: &PickupConfig) {
        self.line("");
        let name = self.paint.strong(&visible(&pickup.name));
        self.line(&if pickup.enabled { name } else { format!("{name} (disabled)") });
        if let Some(git) = &pickup.git {
            self.entry("follows", &follows(git));
        }
        for (at, directory) in pickup.pickup_from.iter().enumerate() {
            let is_made = pickup.git.as_ref().is_some_and(|git| git.url.is_some());
            let missing = match directory.is_dir() {
                true => "",
                false if is_made => " (missing; it is cloned)",
                false => " (missing; it is waited for)",
            };
            self.entry(if at == 0 { "watches" } else { "" }, &format!("{}{missing}", directory.display()));
        }
        self.entry("picks up", &picks_up(pickup));
        if !pickup.ignore.is_empty() {
            self.entry("ignores", &pickup.ignore.join(", "));
        }
        if let Some(how) = how(pickup) {
            self.entry("notices", how);
        }
        if pickup.on_removed == OnRemoved::Keep {
            self.entry("removed files", "stay where they were deployed");
        }
        if pickup.delete_after_pickup {
            self.entry("once live", "the file leaves the pickup directory");
        }
        for (at, name) in pickup.deploy_to.iter().enumerate() {
            let deployer = config.deployers.get(name);
            let described = deployer.map_or_else(|| name.clone(), |deployer| described(deployer, &pickup.name));
            self.entry(if at == 0 { "deploys to" } else { "then to" }, &described);
            if let Some(checks) = deployer.map(|deployer| &deployer.common.verify).filter(|checks| !checks.is_empty()) {
                self.entry("", &format!("verified by {}", checks.iter().map(verify).collect::<Vec<_>>().join(", ")));
            }
        }
    }

    fn problems(&mut self, problems: &[Problem]) {
        self.line("");
        for problem in problems {
            // As compilers write it, so that editors can jump there.
            let line = problem.to_string();
            let painted = match problem.severity {
                Severity::Error => line.replacen("error:", &self.paint.bad("error:"), 1),
                Severity::Warning => line.replacen("warning:", &self.paint.warn("warning:"), 1),
            };
            self.line(&painted);
        }
        let number = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
        let (errors, warnings) = (number(Severity::Error), number(Severity::Warning));
        let verdict = match (errors, warnings) {
            (0, 0) => self.paint.good("no problems"),
            (0, warnings) => self.paint.warn(&count(warnings, "warning")),
            (errors, 0) => self.paint.bad(&count(errors, "error")),
            (errors, warnings) => {
                self.paint.bad(&format!("{}, {}", count(errors, "error"), count(warnings, "warning")))
            }
        };
        self.line(&verdict);
    }
}

/// `main of https://example.org/you/site.git, public; asked every 30s`.
fn follows(git: &GitConfig) -> String {
    let reference = git.reference.as_deref().unwrap_or(if git.url.is_some() { "HEAD" } else { "what is checked out" });
    let remote = git.url.as_ref().map_or(String::new(), |url| format!(" of {url}"));
    let subdir = git.subdir.as_ref().map_or(String::new(), |subdir| format!(", {}", subdir.display()));
    let asked = match (git.auto_checkout, &git.url) {
        (true, _) => {
            let interval = i64::try_from(git.auto_checkout_interval.as_millis()).unwrap_or(i64::MAX);
            format!("asked every {}", span(interval))
        }
        (false, Some(_)) => "asked at start and on `pickupd sync`".to_owned(),
        (false, None) => "pulled by hand".to_owned(),
    };
    format!("{reference}{remote}{subdir}; {asked}")
}

fn picks_up(pickup: &PickupConfig) -> String {
    let patterns = pickup.patterns.join(", ");
    let depth = if pickup.recursive { "" } else { ", not below" };
    match pickup.unit {
        UnitKind::File => format!("{patterns}{depth}; each file by itself"),
        UnitKind::Directory => format!("{patterns}{depth}; each entry directly below as one"),
        UnitKind::Tree => format!("{patterns}{depth}; the whole directory as one"),
    }
}

fn how(pickup: &PickupConfig) -> Option<&'static str> {
    match pickup.watch {
        WatchMode::Auto => None,
        WatchMode::Native => Some("by events only"),
        WatchMode::Poll => Some("by polling"),
        WatchMode::Off => Some("nothing by itself: at start and on `pickupd sync` only"),
    }
}

fn described(deployer: &DeployerConfig, pickup: &str) -> String {
    let name = &deployer.name;
    match &deployer.kind {
        DeployerKind::Copy(copy) => format!("{name}: copies into {}", copy.into.replace("{pickup}", pickup)),
        DeployerKind::Release(release) => {
            let into = release.into.replace("{pickup}", pickup);
            format!("{name}: releases in {into}, the live one at {into}/{}", release.link)
        }
        DeployerKind::Exec(exec) => {
            let per = match exec.per {
                ExecPer::Unit => "each unit",
                ExecPer::ChangeSet => "each change set",
            };
            format!("{name}: runs {} for {per}", exec.command.join(" "))
        }
        DeployerKind::Module(module) => {
            let probe = if module.probe { ", each probed in a process of its own" } else { "" };
            format!("{name}: loads modules into the daemon{probe}, at most {} in all", module.max_generations)
        }
        DeployerKind::Process(process) => {
            let listen: Vec<_> = process.listen.iter().map(|(name, address)| format!("{name} at {address}")).collect();
            let listen = if listen.is_empty() { String::new() } else { format!(", listening: {}", listen.join(", ")) };
            format!("{name}: keeps {} running{listen}", process.command.join(" "))
        }
        DeployerKind::Http(http) => format!("{name}: sends to {} ({})", http.url, http.method),
    }
}

fn verify(check: &VerifyCheck) -> String {
    match check {
        VerifyCheck::Tcp(address) => format!("tcp://{address}"),
        VerifyCheck::Http(url) => url.clone(),
        VerifyCheck::Exec(command) => format!("exec:{}", command.join(" ")),
    }
}

fn value(file: Option<&Path>, config: Option<&Config>, problems: &[Problem]) -> Value {
    let pickups = config.map(|config| config.pickups.values().map(pickup_value).collect::<Vec<_>>());
    let deployers = config.map(|config| config.deployers.values().map(deployer_value).collect::<Vec<_>>());
    json!({
        "file": file,
        "dialect": config.map(|config| config.dialect),
        "state_dir": config.map(|config| &config.settings.state_dir),
        "entries": pickups,
        "broken": config.map(Config::broken_pickups),
        "deployers": deployers,
        "problems": problems,
    })
}

fn pickup_value(pickup: &PickupConfig) -> Value {
    json!({
        "name": pickup.name,
        "enabled": pickup.enabled,
        "pickup_from": pickup.pickup_from,
        "patterns": pickup.patterns,
        "ignore": pickup.ignore,
        "recursive": pickup.recursive,
        "unit": pickup.unit,
        "watch": pickup.watch,
        "on_removed": pickup.on_removed,
        "delete_after_pickup": pickup.delete_after_pickup,
        "git": pickup.git.as_deref().map(git_value),
        "deploy_to": pickup.deploy_to,
    })
}

fn git_value(git: &GitConfig) -> Value {
    json!({
        "url": git.url.as_ref().map(ToString::to_string),
        "ref": git.reference,
        "subdir": git.subdir,
        "auto_checkout": git.auto_checkout,
        "transport": git.transport,
    })
}

fn deployer_value(deployer: &DeployerConfig) -> Value {
    let name = &deployer.name;
    match &deployer.kind {
        DeployerKind::Copy(copy) => json!({ "name": name, "kind": "copy", "into": copy.into }),
        DeployerKind::Release(release) => {
            json!({ "name": name, "kind": "release", "into": release.into, "link": release.link, "keep": release.keep })
        }
        DeployerKind::Exec(exec) => {
            json!({ "name": name, "kind": "exec", "command": exec.command, "per": exec.per })
        }
        DeployerKind::Module(module) => {
            json!({ "name": name, "kind": "module", "probe": module.probe, "max_generations": module.max_generations })
        }
        DeployerKind::Process(process) => {
            let listen: BTreeMap<_, _> =
                process.listen.iter().map(|(name, address)| (name, address.to_string())).collect();
            json!({ "name": name, "kind": "process", "command": process.command, "listen": listen })
        }
        DeployerKind::Http(http) => {
            json!({ "name": name, "kind": "http", "url": http.url, "method": http.method })
        }
    }
}
