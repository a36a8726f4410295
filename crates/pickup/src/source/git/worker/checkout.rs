//! Clones: made where there is none, else only fetched into. What is checked out in one is never touched here.
#![expect(clippy::disallowed_methods, reason = "this is the door to clones")]

use std::io;
use std::path::{Path, PathBuf};

use git2::build::CheckoutBuilder;
use git2::{BranchType, ErrorCode, Oid, Repository, RepositoryInitOptions};

use super::intent::Intent;
use super::lock::Lock;
use super::mirror::remove;
use super::{Check, Failure, Found, Reply, check};
use crate::config::GitUrl;
use crate::source::git::transport::Report;

pub(super) fn check(check: &Check, report: Report<'_>) -> Result<Reply, Failure> {
    let found = match open(&check.repository)? {
        Some(repository) => fetch(check, &repository, report)?,
        None => make(check, report)?,
    };
    Ok(Reply::Checked { found, renewed: None })
}

/// Opens the clone at `path`; `None` if there is nothing, or an empty directory.
fn open(path: &Path) -> Result<Option<Repository>, Failure> {
    match Repository::open(path) {
        Ok(repository) if repository.is_bare() => {
            Err(Failure::refused(format_args!("use {}: it is a bare repository, not a clone", path.display())))
        }
        Ok(repository) => Ok(Some(repository)),
        Err(e) if e.code() != ErrorCode::NotFound => Err(Failure::local(path, &e)),
        Err(_) => match path.read_dir().map(|mut entries| entries.next().is_none()) {
            Ok(true) => Ok(None),
            Ok(false) => Err(Failure::refused(format_args!(
                "clone into {}: it is neither empty nor a git repository; move it away, or choose another directory",
                path.display()
            ))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::io("clone into", path, &e)),
        },
    }
}

/// The check as it is done: of the remote that the clone has, if there is a clone.
pub(super) fn as_cloned(check: &Check) -> Result<Check, Failure> {
    match open(&check.repository)? {
        Some(repository) => of_origin(check, &repository),
        None if check.access.url.expose().is_empty() => Err(nowhere(&check.repository)),
        None => Ok(check.clone()),
    }
}

fn nowhere(path: &Path) -> Failure {
    Failure::refused(format_args!("use {}: there is no clone, and git_url is not set", path.display()))
}

fn of_origin(check: &Check, repository: &Repository) -> Result<Check, Failure> {
    let path = &check.repository;
    let origin = repository.find_remote("origin").ok().and_then(|origin| origin.url().ok().map(GitUrl::new));
    let Some(origin) = origin else {
        let advice = "it has no remote `origin`; add one with `git remote add origin URL`";
        return Err(Failure::refused(format_args!("fetch into {}: {advice}", path.display())));
    };
    let wanted = &check.access.url;
    let mut check = check.clone();
    if wanted.expose().is_empty() {
        // A relative path is relative to the clone.
        check.access.url = match (origin.is_local(), repository.workdir()) {
            (Some(local), Some(home)) => GitUrl::new(home.join(local).to_string_lossy()),
            _ => origin,
        };
    } else if origin.normalised() != wanted.normalised() {
        return Err(Failure::refused(format_args!(
            "fetch into {}: it is a clone of {origin}, and git_url is {wanted}; move it away, or run `git remote set-url \
             origin {}` there",
            path.display(),
            wanted.without_secrets()
        )));
    }
    Ok(check)
}

fn fetch(check: &Check, repository: &Repository, report: Report<'_>) -> Result<Vec<Found>, Failure> {
    let check = of_origin(check, repository)?;
    let intent = Intent::declare(repository)?;
    let found = check::follow(&check, repository, report);
    intent.finish()?;
    found
}

/// Makes a clone beside, and puts it in place whole.
fn make(check: &Check, report: Report<'_>) -> Result<Vec<Found>, Failure> {
    let path = &check.repository;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::refused(format_args!("clone into {}: it has no name", path.display())));
    };
    if check.access.url.expose().is_empty() {
        return Err(nowhere(path));
    }
    std::fs::create_dir_all(parent).map_err(|e| Failure::io("create the directory", parent, &e))?;
    let _lock = Lock::on_directory(parent)?;
    let beside: PathBuf = parent.join(format!(".{}.pickup-clone", name.to_string_lossy()));
    remove(&beside)?;
    let made = fill(check, &beside, report);
    match made {
        Ok((found, true)) => {
            std::fs::rename(&beside, path).map_err(|e| Failure::io("put in place the clone", path, &e))?;
            Ok(found)
        }
        Ok((found, false)) => remove(&beside).map(|()| found),
        Err(failure) => remove(&beside).and(Err(failure)),
    }
}

/// Fetches into a new repository and checks the first of what is wanted out; `false` if it is not there.
fn fill(check: &Check, into: &Path, report: Report<'_>) -> Result<(Vec<Found>, bool), Failure> {
    let local = |e: git2::Error| Failure::local(into, &e);
    let mut options = RepositoryInitOptions::new();
    options.no_reinit(true).mkdir(true).external_template(false);
    let repository = Repository::init_opts(into, &options).map_err(local)?;
    repository.remote("origin", check.access.url.without_secrets().expose()).map_err(local)?;
    let found = check::follow(check, &repository, report)?;
    let Some(Found::At { commit, branch, is_branch }) = found.first() else { return Ok((found, false)) };
    let branch = branch.as_deref().filter(|_| *is_branch);
    check_out(&repository, commit, branch).map_err(local)?;
    Ok((found, true))
}

fn check_out(repository: &Repository, commit: &str, branch: Option<&str>) -> Result<(), git2::Error> {
    let commit = repository.find_commit(Oid::from_str(commit)?)?;
    match branch {
        Some(name) => {
            let mut branch = match repository.find_branch(name, BranchType::Local) {
                Ok(branch) => branch,
                Err(_) => repository.branch(name, &commit, false)?,
            };
            branch.set_upstream(Some(&format!("origin/{name}")))?;
            repository.set_head(&format!("refs/heads/{name}"))?;
        }
        None => repository.set_head_detached(commit.id())?,
    }
    repository.checkout_head(Some(CheckoutBuilder::new().force()))
}
