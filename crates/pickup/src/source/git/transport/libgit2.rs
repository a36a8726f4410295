//! libgit2 as the transport: its own for paths and `git://`, ours below it for http and ssh.
//!
//! libgit2 is never told an address of http or ssh: it opens `pickup-transport://remote`, and the subtransport knows the
//! rest from the thread it is made on. So no message of libgit2's has a secret in it, no `insteadOf` sends us elsewhere,
//! and a program that embeds us keeps its own `https://`.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, FetchPrune, Remote, RemoteCallbacks, Repository,
};

use super::credentials::Login;
use super::{RemoteRef, Report, Transport, failed, http, judge, ssh};
use crate::config::url::Scheme;
use crate::source::git::worker::{Access, Failure, FailureKind, Progress};

/// The scheme of the address that libgit2 sees.
const SCHEME: &str = "pickup-transport";

/// What a subtransport needs, and where it leaves what really happened: `git2::Error` loses it.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub access: Arc<Access>,
    pub login: Arc<Login>,
    failure: Arc<Mutex<Option<Failure>>>,
}

thread_local! {
    /// What the next subtransport that is made on this thread is for.
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

impl Context {
    /// Keeps `failure` unless there is one already: the first is the cause of the others.
    pub(super) fn fail(&self, failure: Failure) -> git2::Error {
        let mut slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(failure);
        git2::Error::new(ErrorCode::GenericError, ErrorClass::Net, "the remote failed")
    }

    /// As [`fail`](Self::fail), where an `io::Error` is wanted.
    pub(super) fn fail_io(&self, failure: Failure) -> std::io::Error {
        self.fail(failure);
        std::io::Error::other("the remote failed")
    }

    fn take(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A remote, as libgit2 sees it.
pub(super) struct Libgit2<'a> {
    access: &'a Access,
    repository: &'a Repository,
    remote: Remote<'a>,
    context: Context,
    /// What the remote announced when it was last asked.
    announced: Vec<RemoteRef>,
}

impl<'a> Libgit2<'a> {
    pub(super) fn new(access: &'a Access, login: Login, repository: &'a Repository) -> Result<Self, Failure> {
        let address = match (access.url.is_local(), access.url.scheme()) {
            (Some(path), _) if !is_directory(&path) => {
                return Err(failed(access, FailureKind::NotFound, "there is no such directory"));
            }
            (Some(path), _) => path.to_string_lossy().into_owned(),
            (None, Some(Scheme::Git)) => access.url.expose().to_owned(),
            (None, _) => format!("{SCHEME}://remote"),
        };
        register().map_err(|e| failed(access, FailureKind::Other, e.message()))?;
        let remote = repository.remote_anonymous(&address).map_err(|e| judge(access, e.message()))?;
        let context = Context { access: Arc::new(access.clone()), login: Arc::new(login), failure: Arc::default() };
        Ok(Self { access, repository, remote, context, announced: Vec::new() })
    }

    /// Points our references to what `refspecs` brought. libgit2 would do so too, and empty `FETCH_HEAD` at that, which in
    /// a clone is somebody's own.
    fn update_references(&self, refspecs: &[String]) -> Result<(), git2::Error> {
        for spec in refspecs {
            let Some((source, target)) = spec.trim_start_matches('+').split_once(':') else { continue };
            let point = |name: &str, id| self.repository.reference(name, id, true, "pickup: fetch").map(drop);
            if let Ok(id) = git2::Oid::from_str(source).and_then(|id| self.repository.find_object(id, None)) {
                point(target, id.id())?;
                continue;
            }
            for found in self.announced.iter().filter(|found| !found.name.ends_with("^{}")) {
                match (source.strip_suffix('*'), target.strip_suffix('*')) {
                    (Some(source), Some(target)) => {
                        if let Some(rest) = found.name.strip_prefix(source) {
                            point(&format!("{target}{rest}"), found.id)?;
                        }
                    }
                    _ if found.name == source => point(target, found.id)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Does something that speaks to the remote; what the subtransport says went wrong goes before what libgit2 says.
    fn speak<T>(&mut self, act: impl FnOnce(&mut Remote<'a>) -> Result<T, git2::Error>) -> Result<T, Failure> {
        CONTEXT.set(Some(self.context.clone()));
        let done = act(&mut self.remote);
        CONTEXT.set(None);
        done.map_err(|error| match self.context.take() {
            Some(failure) => failure,
            None => understand(self.access, &error),
        })
    }
}

impl Transport for Libgit2<'_> {
    fn list(&mut self) -> Result<Vec<RemoteRef>, Failure> {
        self.announced = self.speak(|remote| {
            remote.connect(Direction::Fetch)?;
            let refs = remote.list()?.iter().map(|head| RemoteRef {
                name: head.name().to_owned(),
                id: head.oid(),
                symref: head.symref_target().map(str::to_owned),
            });
            Ok(refs.collect())
        })?;
        Ok(self.announced.clone())
    }

    fn fetch(&mut self, refspecs: &[String], depth: u32, report: Report<'_>) -> Result<(), Failure> {
        let access = self.access;
        let is_too_large = Cell::new(false);
        let mut callbacks = RemoteCallbacks::new();
        callbacks.transfer_progress(|stats| {
            let bytes = stats.received_bytes() as u64;
            report(Progress {
                objects: stats.received_objects() as u64,
                objects_total: stats.total_objects() as u64,
                bytes,
            });
            is_too_large.set(bytes > access.size_max);
            !is_too_large.get()
        });
        let mut options = FetchOptions::new();
        options.remote_callbacks(callbacks).download_tags(AutotagOption::None).prune(FetchPrune::Off);
        options.update_fetchhead(false);
        // The local transport refuses to be shallow.
        if access.url.is_local().is_none() {
            options.depth(i32::try_from(depth).unwrap_or(i32::MAX));
        }
        let done = self.speak(|remote| {
            remote.download(refspecs, Some(&mut options))?;
            // Where the stream goes on, as over ssh, the next fetch needs a new one.
            remote.disconnect()
        });
        drop(options);
        match done {
            Ok(()) => self.update_references(refspecs).map_err(|e| Failure::local(self.repository.path(), &e)),
            Err(_) if is_too_large.get() => Err(too_large(access)),
            Err(failure) => Err(failure),
        }
    }
}

/// That a fetch was given up because of its size.
pub(super) fn too_large(access: &Access) -> Failure {
    let why = format!("it brings more than {} bytes: see git_size_max", access.size_max);
    failed(access, FailureKind::TooLarge, why)
}

fn understand(access: &Access, error: &git2::Error) -> Failure {
    match (error.code(), error.class()) {
        (ErrorCode::Owner, _) => judge(access, "it is not owned by current user"),
        (ErrorCode::Locked, _) => failed(access, FailureKind::Busy, error.message()),
        (_, ErrorClass::NoMemory) => judge(access, "out of memory"),
        (ErrorCode::Eof, _) => failed(access, FailureKind::Unreachable, "it hung up in the middle"),
        (_, ErrorClass::Net | ErrorClass::Http | ErrorClass::Ssh) => match judge(access, error.message()) {
            Failure { kind: FailureKind::Other, message } => Failure { kind: FailureKind::Unreachable, message },
            failure => failure,
        },
        // A pack that ends early or is damaged fails where it is indexed.
        (_, ErrorClass::Indexer | ErrorClass::Zlib) => {
            failed(access, FailureKind::Unreachable, format!("what it sent is damaged: {}", error.message()))
        }
        _ => judge(access, error.message()),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door to repositories on this machine")]
fn is_directory(path: &std::path::Path) -> bool {
    path.is_dir()
}

/// Tells libgit2 of our transport, once in the life of the process.
fn register() -> Result<(), git2::Error> {
    static DONE: OnceLock<Result<(), git2::Error>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        // SAFETY: the list of transports that this adds to is read whenever a remote is connected. Here that happens after
        // this call only, since every connection of ours comes by here, and `OnceLock` lets nobody pass before it is done.
        unsafe {
            git2::transport::register(SCHEME, |remote| {
                let context = CONTEXT.with_borrow(Clone::clone);
                let context = context.ok_or_else(|| git2::Error::from_str("no fetch is under way on this thread"))?;
                if context.access.url.scheme() == Some(Scheme::Ssh) {
                    return git2::transport::Transport::smart(remote, false, ssh::Ssh::new(context));
                }
                let http = http::Http::new(context.clone()).map_err(|failure| context.fail(failure))?;
                git2::transport::Transport::smart(remote, true, http)
            })
        }
    });
    match done {
        Ok(()) => Ok(()),
        Err(error) => Err(git2::Error::from_str(error.message())),
    }
}
