//! One `deployer.<name>` section in, one [`DeployerConfig`] out.

use std::path::{Path, PathBuf};

use super::document::Data;
use super::keys::{self, KeySection};
use super::problem::{nearest, shorten};
use super::reader::{Reader, text};
use super::{
    CopyConfig, DeployerCommon, DeployerConfig, DeployerKind, ExecConfig, ExecPer, ExecStdin, ModuleConfig,
    ReleaseConfig, http, process, verify,
};
use crate::path::UnitPath;

const MODE_MAX: u32 = 0o7777;

/// The deployer called `name`, or `None` if anything is wrong with it.
pub(crate) fn read(mut reader: Reader<'_>, name: &str) -> Option<DeployerConfig> {
    let reader = &mut reader;
    if name.trim().is_empty() || name.contains(char::is_control) {
        reader.name_error("the name must not be blank or hold control characters");
    }
    if reader.surroundings.registered().iter().any(|registered| registered == name) {
        reader.name_error("the program has a deployer of this name already");
    }
    let kind = kind(reader)?;
    reader.check_names(&[KeySection::Deployer, kind]);
    let mut common = common(reader);
    let kind = match kind {
        KeySection::Copy => DeployerKind::Copy(copy(reader)),
        KeySection::Release => DeployerKind::Release(release(reader)),
        KeySection::Exec => DeployerKind::Exec(exec(reader)),
        KeySection::Module => DeployerKind::Module(module(reader)),
        KeySection::Process => DeployerKind::Process(process::read(reader)),
        KeySection::Http => DeployerKind::Http(http::read(reader)),
        KeySection::Settings | KeySection::Entry | KeySection::Git | KeySection::Deployer => return None,
    };
    if let DeployerKind::Process(process) = &kind {
        give_time(reader, process, &mut common);
    }
    (!reader.is_broken).then(|| DeployerConfig { name: name.to_owned(), kind, common })
}

/// A phase of a supervised program must not be over before the program's own deadlines are.
fn give_time(reader: &mut Reader<'_>, process: &super::ProcessConfig, common: &mut DeployerCommon) {
    let least = process.phase_max();
    if reader.value("timeout").is_none() {
        common.timeout = common.timeout.max(least);
    } else if common.timeout < least {
        let message = "is shorter than starting, probation or draining may take, with 5 s to spare";
        reader.error("timeout", format!("{message}: {least:?}"));
    }
}

fn kind(reader: &mut Reader<'_>) -> Option<KeySection> {
    const KINDS: &str = "expected one of `copy`, `release`, `exec`, `process`, `module`, `http`";
    if reader.value("kind").is_none() {
        // Wrong names are worth reporting even so: `knid = "copy"` is why the kind is missing.
        let sections = keys::KEYS.iter().map(|(section, _)| *section);
        let any_kind = sections.filter(|section| *section == KeySection::Deployer || section.kind().is_some());
        reader.check_names(&any_kind.collect::<Vec<_>>());
        reader.error("kind", format!("is missing: {KINDS}"));
        return None;
    }
    let written = reader.text("kind")?;
    let kind = KeySection::of_kind(&written);
    if kind.is_none() {
        let hint = nearest(&written, ["copy", "release", "exec", "process", "module", "http"]);
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        reader.error("kind", format!("{KINDS}, found `{}`{hint}", shorten(&written)));
    }
    kind
}

fn common(reader: &mut Reader<'_>) -> DeployerCommon {
    let default = DeployerCommon::default();
    DeployerCommon {
        timeout: reader.interval("timeout", default.timeout),
        retry: reader.number("retry", default.retry, 0, 1000),
        retry_backoff: reader.interval("retry_backoff", default.retry_backoff),
        verify: checks(reader),
        verify_timeout: reader.interval("verify_timeout", default.verify_timeout),
    }
}

fn checks(reader: &mut Reader<'_>) -> Vec<super::VerifyCheck> {
    let mut checks = Vec::new();
    for written in reader.list("verify").unwrap_or_default() {
        match verify::check(&written) {
            Ok(check) => checks.push(check),
            Err(message) => reader.error("verify", message),
        }
    }
    checks
}

fn copy(reader: &mut Reader<'_>) -> CopyConfig {
    CopyConfig {
        into: into(reader),
        mode: reader.read("mode", mode),
        owner: reader.read("owner", |data| owner(text(data)?)),
        strip: reader.number("strip", 0, 0, 100) as usize,
        durable: reader.boolean("durable", true),
    }
}

fn release(reader: &mut Reader<'_>) -> ReleaseConfig {
    ReleaseConfig {
        into: into(reader),
        keep: reader.number("keep", 5, 1, 10_000) as usize,
        link: reader.read("link", |data| link(text(data)?)).unwrap_or_else(|| "current".into()),
        shared: shared(reader),
        durable: reader.boolean("durable", true),
    }
}

fn exec(reader: &mut Reader<'_>) -> ExecConfig {
    if reader.value("command").is_none() {
        reader.error("command", "is missing: which program is to be run?");
    }
    ExecConfig {
        command: command(reader, "command").unwrap_or_default(),
        per: reader.choice("per", ExecPer::Unit, PERS),
        rollback_command: command(reader, "rollback_command"),
        cwd: reader.path("cwd").or_else(|| Some(reader.surroundings.base().to_path_buf())),
        env: reader.pairs("env"),
        stdin: reader.choice("stdin", ExecStdin::Json, STDINS),
    }
}

fn module(reader: &mut Reader<'_>) -> ModuleConfig {
    let default = ModuleConfig::default();
    ModuleConfig {
        allow_needed: reader.checked_list("allow_needed", library).unwrap_or(default.allow_needed),
        probe: reader.boolean("probe", default.probe),
        max_generations: reader.number("max_generations", 64, 1, 10_000) as usize,
        config: reader.text("config").unwrap_or(default.config),
    }
}

fn library(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['/', '*']) {
        return Err(format!("expected the name of a library such as `libz.so.1`, found `{}`", shorten(name)));
    }
    Ok(())
}

pub(super) const PERS: &[(&str, ExecPer)] = &[("unit", ExecPer::Unit), ("change_set", ExecPer::ChangeSet)];
pub(super) const STDINS: &[(&str, ExecStdin)] = &[("json", ExecStdin::Json), ("none", ExecStdin::None)];

pub(super) fn into(reader: &mut Reader<'_>) -> String {
    if reader.value("into").is_none() {
        reader.error("into", "is missing: which directory is to be written to?");
        return String::new();
    }
    let Some(written) = reader.text("into") else { return String::new() };
    for other in ["{unit}", "{generation}"] {
        if written.contains(other) {
            reader.warning("into", format!("`{other}` is taken as it stands here, only `{{pickup}}` expands"));
        }
    }
    match reader.surroundings.path(&written) {
        Ok(path) => utf_8(&path).unwrap_or_else(|message| {
            reader.error("into", message);
            String::new()
        }),
        Err(message) => {
            reader.error("into", message);
            String::new()
        }
    }
}

/// `path` as the text in which `{pickup}` expands.
pub(super) fn utf_8(path: &Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()))
}

fn mode(data: &Data) -> Result<u32, String> {
    const EXPECTED: &str = "expected an octal mode such as \"0644\" or 0o644";
    let parsed = match data {
        Data::Integer(digits, 8) => u32::from_str_radix(digits, 8).ok(),
        Data::Text(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let is_octal = (3..=5).contains(&digits.len()) && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
            u32::from_str_radix(digits, 8).ok().filter(|_| is_octal)
        }
        Data::Integer(..) | Data::Boolean(_) | Data::List(_) | Data::Table(_) | Data::Other(_) => None,
    };
    parsed.filter(|mode| *mode <= MODE_MAX).ok_or_else(|| EXPECTED.into())
}

pub(super) fn owner(text: &str) -> Result<String, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let is_name = |name: &str| !name.contains(|c: char| c == ':' || c == '/' || c.is_whitespace());
    let has_any = !user.is_empty() || !group.is_empty();
    if has_any && is_name(user) && is_name(group) && !(text.ends_with(':')) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected `user`, `user:group` or `:group`, found `{}`", shorten(text)))
    }
}

fn link(text: &str) -> Result<String, String> {
    let is_plain = UnitPath::new(text).is_some_and(|path| path.as_path() == Path::new(text) && path.first() == path);
    match text {
        "releases" | "shared" => Err(format!("`{text}` is the name of a directory beside the link")),
        _ if is_plain && !text.is_empty() && !text.contains(['/', '\\']) => Ok(text.to_owned()),
        _ => Err(format!("expected one file name, found `{}`", shorten(text))),
    }
}

fn shared(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let mut shared = Vec::new();
    for written in reader.list("shared").unwrap_or_default() {
        match UnitPath::new(&written).filter(|path| !path.is_root()) {
            Some(path) => shared.push(path.as_path().to_path_buf()),
            None => {
                let message = format!("expected a relative path without `..`, found `{}`", shorten(&written));
                reader.error("shared", message);
            }
        }
    }
    shared
}

pub(super) fn command(reader: &mut Reader<'_>, key: &str) -> Option<Vec<String>> {
    let is_one_string = matches!(reader.value(key)?.data, Data::Text(_));
    let command = reader.list(key)?;
    let Some(program) = command.first().filter(|program| !program.trim().is_empty()) else {
        reader.error(key, "names no program");
        return None;
    };
    if is_one_string && program.contains(char::is_whitespace) {
        // There is no shell that would take it apart.
        let parts: Vec<_> = program.split_whitespace().map(|part| format!("{part:?}")).collect();
        let message = match reader.dialect {
            super::Dialect::Toml => format!("expected a list: [{}]", shorten(&parts.join(", "))),
            super::Dialect::Zato => format!("expected a list: {}", shorten(&parts.join(", "))),
        };
        reader.error(key, message);
        return None;
    }
    Some(command)
}
