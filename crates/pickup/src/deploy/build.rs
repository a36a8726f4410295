//! A configured section in, a deployer out.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

#[cfg(unix)]
use crate::config::ModuleConfig;
use crate::config::{DeployerConfig, DeployerKind};
use crate::deploy::dynamic::DynDeployer;
use crate::error::Result;

/// What a deployer is given besides its section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    /// Where it may keep what is its own.
    pub(crate) state_dir: &'a Path,
    /// The program that loads modules for a test, if there is one.
    pub(crate) module_probe: Option<&'a [OsString]>,
}

/// Makes the deployer that a `[deployer.<name>]` section describes.
///
/// What [`common`](DeployerConfig::common) says holds for every kind and is the engine's to keep: deadlines, retries,
/// and the checks of [`verify`](crate::deploy::verify::verify).
#[cfg(unix)]
pub(crate) fn build(config: &DeployerConfig, site: Site<'_>) -> Result<Arc<dyn DynDeployer>> {
    use crate::deploy::{Copy, Exec, Release};
    use crate::error::Error;

    let named = |error: Error| Error::new(error.kind(), format!("set up deployer {}", config.name)).caused_by(error);
    Ok(match &config.kind {
        DeployerKind::Copy(copy) => Arc::new(Copy::new(copy.clone())),
        DeployerKind::Release(release) => Arc::new(Release::new(release.clone()).map_err(named)?),
        DeployerKind::Exec(exec) => Arc::new(Exec::new(exec.clone()).map_err(named)?),
        DeployerKind::Module(module) => self::module(&config.name, module, site).map_err(named)?,
        DeployerKind::Http(http) => Arc::new(crate::deploy::Http::new(http.clone()).map_err(named)?),
        #[cfg(target_os = "linux")]
        DeployerKind::Process(process) => {
            Arc::new(crate::deploy::Process::new(process.clone(), &config.name).map_err(named)?)
        }
        #[cfg(not(target_os = "linux"))]
        DeployerKind::Process(_) => {
            let action = format!("use deployer {}: kind process needs Linux", config.name);
            return Err(Error::new(crate::error::ErrorKind::Config, action));
        }
    })
}

#[cfg(target_os = "linux")]
fn module(name: &str, config: &ModuleConfig, site: Site<'_>) -> Result<Arc<dyn DynDeployer>> {
    use crate::capture::Digest;
    use crate::deploy::Module;

    // A directory for each name, because what is loaded is counted by directory; any text may be a name.
    let own = Digest::of(name.as_bytes()).short();
    let probe = site.module_probe.filter(|_| config.probe).map(<[OsString]>::to_vec);
    Ok(Arc::new(Module::new(config.clone(), site.state_dir.join("modules").join(own), probe)?))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn module(_name: &str, _config: &ModuleConfig, site: Site<'_>) -> Result<Arc<dyn DynDeployer>> {
    use crate::error::{Error, ErrorKind};

    let _ = (site.state_dir, site.module_probe);
    Err(Error::new(ErrorKind::Config, "use it: kind module needs Linux"))
}

/// The kinds there are all rest on Unix; elsewhere a program brings its own deployers.
#[cfg(not(unix))]
pub(crate) fn build(config: &DeployerConfig, site: Site<'_>) -> Result<Arc<dyn DynDeployer>> {
    use crate::error::{Error, ErrorKind};

    let _ = (site.state_dir, site.module_probe);
    let kind = match &config.kind {
        DeployerKind::Copy(_) => "copy",
        DeployerKind::Release(_) => "release",
        DeployerKind::Exec(_) => "exec",
        DeployerKind::Module(_) => "module",
        DeployerKind::Process(_) => "process",
        DeployerKind::Http(_) => "http",
    };
    Err(Error::new(ErrorKind::Config, format!("use deployer {}: kind {kind} needs Unix", config.name)))
}

#[cfg(all(test, unix))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{CopyConfig, DeployerCommon, ExecConfig, ExecPer, ExecStdin};
    use crate::deploy::Scope;

    fn section(kind: DeployerKind) -> DeployerConfig {
        DeployerConfig { name: "web".into(), kind, common: DeployerCommon::default() }
    }

    fn site() -> Site<'static> {
        Site { state_dir: Path::new("/var/lib/pickup"), module_probe: None }
    }

    #[test]
    fn each_kind_has_its_scope() {
        let copy = CopyConfig { into: "/srv".into(), mode: None, owner: None, strip: 0, durable: true };
        assert_eq!(build(&section(DeployerKind::Copy(copy)), site()).unwrap().scope(), Scope::Unit);
    }

    #[test]
    fn what_cannot_be_built_names_its_section() {
        let exec = ExecConfig {
            command: Vec::new(),
            per: ExecPer::Unit,
            rollback_command: None,
            cwd: None,
            env: BTreeMap::new(),
            stdin: ExecStdin::None,
        };
        let error = build(&section(DeployerKind::Exec(exec)), site()).err().unwrap();
        assert_eq!(error.to_string(), "set up deployer web: run a command without a program");
    }
}
