//! `git merge --ff-only` for a clone: its branch and working tree go forward together, or nothing moves.
//!
//! A checkout that a crash cut short is finished by the next one, which can tell its own half-written files from
//! somebody's edits: they are the beginning of what was to be written.
#![expect(clippy::disallowed_methods, reason = "this is the door to the working trees of clones")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use git2::build::CheckoutBuilder;
use git2::{
    AttrCheckFlags, AttrValue, CheckoutNotificationType, Commit, ErrorCode, FileMode, Oid, Repository, RepositoryState,
    StatusOptions,
};

use super::intent::{Intent, Move};
use super::{Failure, FailureKind};

/// How many files a refusal names.
const NAMED_MAX: usize = 5;

/// What a commit has at a path: its id, and whether it is a symlink or the like.
type Side = Option<(Oid, FileMode)>;

pub(super) fn advance(path: &Path, to: &str) -> Result<(), Failure> {
    let repository = Repository::open(path).map_err(|e| Failure::local(path, &e))?;
    let mut intent = Intent::declare(&repository)?;
    let clone = Clone { path, repository: &repository };
    let done = clone.advance(&mut intent, to);
    // A checkout that was begun stays noted, since its files are noted as ours with it.
    intent.finish()?;
    done
}

/// A clone that is to go forward.
struct Clone<'a> {
    path: &'a Path,
    repository: &'a Repository,
}

impl Clone<'_> {
    fn advance(&self, intent: &mut Intent, to: &str) -> Result<(), Failure> {
        let branch = self.branch()?;
        let mut head = self.head()?;
        if let Some(torn) = intent.moving().cloned() {
            if torn.from == head.id().to_string() {
                let target = self.commit(&torn.to)?;
                self.finish_torn(&head, &target)?;
                self.move_branch(&branch, &head, &target, || self.force(&head, &target))?;
                head = target;
            }
            // Otherwise somebody moved the branch by hand: what the files are is theirs to know.
            intent.set_moving(None)?;
        }
        let target = self.commit(to)?;
        if head.id() == target.id() {
            return Ok(());
        }
        if !self.check_forward(&head, &target)? {
            return Ok(());
        }
        self.check_unedited(&|_| false)?;
        self.check_filters(&head, &target)?;
        intent.set_moving(Some(Move { from: head.id().to_string(), to: target.id().to_string() }))?;
        match self.move_branch(&branch, &head, &target, || self.check_out(&target)) {
            // Of what is refused, nothing was written.
            Err(failure) if matches!(failure.kind, FailureKind::Refused | FailureKind::Busy) => {
                intent.set_moving(None)?;
                Err(failure)
            }
            Err(failure) => Err(failure),
            Ok(()) => intent.set_moving(None),
        }
    }

    /// The full name of the branch that is checked out, if the clone is in a state to go on.
    fn branch(&self) -> Result<String, Failure> {
        let repository = self.repository;
        if repository.is_bare() {
            return Err(self.refused("it is a bare repository"));
        }
        match repository.state() {
            RepositoryState::Clean => {}
            RepositoryState::Merge => return Err(self.refused("a merge is in progress: finish or abort it")),
            RepositoryState::Rebase
            | RepositoryState::RebaseInteractive
            | RepositoryState::RebaseMerge
            | RepositoryState::ApplyMailbox
            | RepositoryState::ApplyMailboxOrRebase => {
                return Err(self.refused("a rebase is in progress: finish or abort it"));
            }
            RepositoryState::Revert
            | RepositoryState::RevertSequence
            | RepositoryState::CherryPick
            | RepositoryState::CherryPickSequence
            | RepositoryState::Bisect => {
                return Err(self.refused("a revert, cherry-pick or bisect is in progress: finish or abort it"));
            }
        }
        let lock = repository.path().join("index.lock");
        if lock.exists() {
            let message = format!(
                "move {} forward: a git command is at work there; if none is, remove {}",
                self.path.display(),
                lock.display()
            );
            return Err(Failure::new(FailureKind::Busy, message));
        }
        let is_sparse =
            repository.config().and_then(|mut c| c.snapshot()).and_then(|c| c.get_bool("core.sparseCheckout"));
        if is_sparse.unwrap_or(false) {
            let why = "its checkout is sparse, which the built-in git library cannot keep so; run `git sparse-checkout \
                       disable` there, or `git pull` by hand";
            return Err(self.unsupported(why));
        }
        let head = repository.find_reference("HEAD").map_err(|e| self.local(&e))?;
        match head.symbolic_target().ok().flatten() {
            Some(branch) => Ok(branch.to_owned()),
            None => Err(self.refused("its HEAD is on no branch: check one out")),
        }
    }

    fn head(&self) -> Result<Commit<'_>, Failure> {
        self.repository.head().and_then(|head| head.peel_to_commit()).map_err(|e| match e.code() {
            ErrorCode::UnbornBranch => self.refused("its branch has no commit yet: check one out that has"),
            _ => self.local(&e),
        })
    }

    fn commit(&self, id: &str) -> Result<Commit<'_>, Failure> {
        Oid::from_str(id).and_then(|id| self.repository.find_commit(id)).map_err(|e| self.local(&e))
    }

    /// Whether `target` comes after `head`; not, if `head` holds it already and commits of its own besides.
    fn check_forward(&self, head: &Commit<'_>, target: &Commit<'_>) -> Result<bool, Failure> {
        if self.repository.is_shallow() && self.repository.merge_base(head.id(), target.id()).is_err() {
            return Err(self.refused(
                "its history is too short to tell whether the branch moved forward: run `git fetch --unshallow` there, \
                 and leave out git_depth",
            ));
        }
        let apart = self.repository.graph_ahead_behind(head.id(), target.id()).map_err(|e| self.local(&e))?;
        match apart {
            (0, _) => Ok(true),
            (_, 0) => Ok(false),
            (1, _) => Err(self.refused("the branch has 1 commit of its own: push it, or merge by hand")),
            (n, _) => Err(self.refused(&format!("the branch has {n} commits of its own: push them, or merge by hand"))),
        }
    }

    /// Whether index and working tree are as `HEAD` has them, apart from paths that are `ours`.
    fn check_unedited(&self, ours: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
        let mut options = StatusOptions::new();
        options.include_untracked(false).include_ignored(false).exclude_submodules(true).update_index(false);
        let statuses = self.repository.statuses(Some(&mut options)).map_err(|e| self.local(&e))?;
        let paths = statuses.iter().map(|entry| String::from_utf8_lossy(entry.path_bytes()).into_owned());
        let edited: Vec<String> = paths.filter(|path| !ours(path)).collect();
        match edited.is_empty() {
            true => Ok(()),
            false => Err(self.refused(&format!("edited there: {}; commit or stash that", names(&edited)))),
        }
    }

    /// libgit2 runs no filters such as git LFS's, and says nothing: it would write pointers where people expect files.
    fn check_filters(&self, head: &Commit<'_>, target: &Commit<'_>) -> Result<(), Failure> {
        for path in self.changes(head, target)?.keys() {
            let filter = self.repository.get_attr(Path::new(path), "filter", AttrCheckFlags::FILE_THEN_INDEX);
            let filter = filter.map_err(|e| self.local(&e))?;
            if let AttrValue::String(filter) = AttrValue::from_string(filter) {
                let why = "which the built-in git library does not run; run `git pull` there by hand";
                return Err(self.unsupported(&format!("{path} goes through the filter `{filter}`, {why}")));
            }
        }
        Ok(())
    }

    /// Each path that two commits have differently.
    fn changes(&self, from: &Commit<'_>, to: &Commit<'_>) -> Result<BTreeMap<String, (Side, Side)>, Failure> {
        let diff = || {
            let (from, to) = (from.tree()?, to.tree()?);
            self.repository.diff_tree_to_tree(Some(&from), Some(&to), None)
        };
        let diff = diff().map_err(|e| self.local(&e))?;
        let mut changes: BTreeMap<String, (Side, Side)> = BTreeMap::new();
        for delta in diff.deltas() {
            let side = |file: git2::DiffFile<'_>| (!file.id().is_zero()).then(|| (file.id(), file.mode()));
            let path = delta.new_file().path_bytes().or_else(|| delta.old_file().path_bytes()).unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            changes.insert(path, (side(delta.old_file()), side(delta.new_file())));
        }
        Ok(changes)
    }

    /// Whether all that a checkout of ours left half done is ours, and nobody has edited anything since.
    fn finish_torn(&self, from: &Commit<'_>, to: &Commit<'_>) -> Result<(), Failure> {
        let changes = self.changes(from, to)?;
        self.check_unedited(&|path| changes.contains_key(path))?;
        let mut index = self.repository.index().map_err(|e| self.local(&e))?;
        index.read(true).map_err(|e| self.local(&e))?;
        let mut foreign = Vec::new();
        for (path, (from, to)) in &changes {
            let staged = index.get_path(Path::new(path), 0).map(|entry| entry.id);
            let is_staged_by_us = [from, to].iter().any(|side| side.map(|(id, _)| id) == staged);
            if !is_staged_by_us || !self.is_ours(path, *from, *to)? {
                foreign.push(path.clone());
            }
        }
        match foreign.is_empty() {
            true => Ok(()),
            false => Err(self.refused(&format!(
                "a checkout was cut short, and since then somebody edited {}; run `git stash` there",
                names(&foreign)
            ))),
        }
    }

    /// Whether what is at `path` is what was there before, what was to be there, or the beginning of that.
    fn is_ours(&self, path: &str, from: Side, to: Side) -> Result<bool, Failure> {
        let Some(home) = self.repository.workdir() else { return Ok(false) };
        let place = home.join(path);
        let found = match place.symlink_metadata() {
            Ok(found) => found,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(true),
            Err(e) => return Err(Failure::io("look at", &place, &e)),
        };
        let sides = || [from, to].into_iter().flatten();
        if found.is_dir() {
            // A submodule, or a directory that a file becomes or was: what is in it is judged by itself.
            return Ok(sides().any(|(_, mode)| mode == FileMode::Commit) || from.is_none() != to.is_none());
        }
        let content = if found.is_symlink() {
            place.read_link().map(|target| target.into_os_string().into_encoded_bytes())
        } else {
            std::fs::read(&place)
        };
        let content = content.map_err(|e| Failure::io("read", &place, &e))?;
        for (side, may_be_torn) in [(from, false), (to, !found.is_symlink())] {
            let Some((id, _)) = side.filter(|(_, mode)| (*mode == FileMode::Link) == found.is_symlink()) else {
                continue;
            };
            let blob = self.repository.find_blob(id).map_err(|e| self.local(&e))?;
            if is_written(&content, blob.content(), may_be_torn) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the branch to `target` once `check_out` has succeeded; nobody else can move it meanwhile.
    fn move_branch(
        &self,
        branch: &str,
        head: &Commit<'_>,
        target: &Commit<'_>,
        check_out: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut transaction = self.repository.transaction().map_err(|e| self.local(&e))?;
        transaction.lock_ref(branch).map_err(|e| self.local(&e))?;
        if self.repository.refname_to_id(branch).ok() != Some(head.id()) {
            let message = format!("move {} forward: its branch was moved at the same time", self.path.display());
            return Err(Failure::new(FailureKind::Busy, message));
        }
        check_out()?;
        let done = transaction.set_target(branch, target.id(), None, "pickup: fast-forward");
        done.and_then(|()| transaction.commit()).map_err(|e| self.local(&e))
    }

    /// Writes what `target` has otherwise, unless something of somebody's is in the way.
    fn check_out(&self, target: &Commit<'_>) -> Result<(), Failure> {
        let in_the_way = RefCell::new(Vec::new());
        let mut options = CheckoutBuilder::new();
        options.safe().overwrite_ignored(false).recreate_missing(false);
        options.notify_on(CheckoutNotificationType::CONFLICT);
        options.notify(|_, path, _, _, _| {
            in_the_way.borrow_mut().extend(path.map(|path| path.display().to_string()));
            true
        });
        let done = self.repository.checkout_tree(target.as_object(), Some(&mut options));
        drop(options);
        done.map_err(|e| match e.code() {
            ErrorCode::Conflict => {
                let what = names(&in_the_way.into_inner());
                self.refused(&format!("files that are not in git are in the way: {what}; move them away"))
            }
            _ => self.local(&e),
        })
    }

    /// Writes what `to` has otherwise than `from`, whatever is there.
    fn force(&self, from: &Commit<'_>, to: &Commit<'_>) -> Result<(), Failure> {
        let mut options = CheckoutBuilder::new();
        options.force().disable_pathspec_match(true);
        for path in self.changes(from, to)?.keys() {
            options.path(path.as_str());
        }
        self.repository.checkout_tree(to.as_object(), Some(&mut options)).map_err(|e| self.local(&e))
    }

    fn refused(&self, why: &str) -> Failure {
        Failure::refused(format_args!("move {} forward: {why}", self.path.display()))
    }

    fn unsupported(&self, why: &str) -> Failure {
        Failure::new(FailureKind::Unsupported, format_args!("move {} forward: {why}", self.path.display()))
    }

    fn local(&self, error: &git2::Error) -> Failure {
        Failure::local(self.path, error)
    }
}

/// Whether `content` is `blob`, or the beginning of it; ends of lines may be converted.
fn is_written(content: &[u8], blob: &[u8], may_be_torn: bool) -> bool {
    let is_it = |content: &[u8], blob: &[u8]| content == blob || (may_be_torn && blob.starts_with(content));
    if is_it(content, blob) {
        return true;
    }
    let plain = |bytes: &[u8]| bytes.iter().copied().filter(|&byte| byte != b'\r').collect::<Vec<u8>>();
    content.contains(&b'\r') && is_it(&plain(content), &plain(blob))
}

/// The first few of `paths`.
fn names(paths: &[String]) -> String {
    let shown = paths[..paths.len().min(NAMED_MAX)].join(", ");
    match paths.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
