//! A configured section in, a deployer out.

use std::sync::Arc;

use crate::config::{DeployerConfig, DeployerKind};
use crate::deploy::dynamic::DynDeployer;
use crate::error::Result;

/// Makes the deployer that a `[deployer.<name>]` section describes.
///
/// What [`common`](DeployerConfig::common) says holds for every kind and is the engine's to keep: deadlines, retries,
/// and the checks of [`verify`](crate::deploy::verify::verify).
#[cfg(unix)]
pub(crate) fn build(config: &DeployerConfig) -> Result<Arc<dyn DynDeployer>> {
    use crate::deploy::{Copy, Exec, Release};
    use crate::error::Error;

    let named = |error: Error| Error::new(error.kind(), format!("set up deployer {}", config.name)).caused_by(error);
    Ok(match &config.kind {
        DeployerKind::Copy(copy) => Arc::new(Copy::new(copy.clone())),
        DeployerKind::Release(release) => Arc::new(Release::new(release.clone()).map_err(named)?),
        DeployerKind::Exec(exec) => Arc::new(Exec::new(exec.clone()).map_err(named)?),
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

/// The kinds there are all rest on Unix; elsewhere a program brings its own deployers.
#[cfg(not(unix))]
pub(crate) fn build(config: &DeployerConfig) -> Result<Arc<dyn DynDeployer>> {
    use crate::error::{Error, ErrorKind};

    let kind = match &config.kind {
        DeployerKind::Copy(_) => "copy",
        DeployerKind::Release(_) => "release",
        DeployerKind::Exec(_) => "exec",
        DeployerKind::Process(_) => "process",
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

    #[test]
    fn each_kind_has_its_scope() {
        let copy = CopyConfig { into: "/srv".into(), mode: None, owner: None, strip: 0, durable: true };
        assert_eq!(build(&section(DeployerKind::Copy(copy))).unwrap().scope(), Scope::Unit);
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
        let error = build(&section(DeployerKind::Exec(exec))).err().unwrap();
        assert_eq!(error.to_string(), "set up deployer web: run a command without a program");
    }
}
