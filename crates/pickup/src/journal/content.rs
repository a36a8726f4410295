//! What units consist of, each distinct content stored once; and the column forms that all tables share.

use std::ffi::OsStr;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, Row, params};

use super::{Attempt, Fault};
use crate::capture::{CapturedFile, Digest, Stored};
use crate::change::live::Kept;
use crate::change::{ChangeKind, Content, TreeFile};
use crate::path::UnitPath;

const DIGEST_LENGTH: usize = 32;
const FILE_KEY_LENGTH: usize = DIGEST_LENGTH + size_of::<u32>() + size_of::<u64>();

/// One file of a tree in JSON: path, digest, size, mode.
type FileRow = (UnitPath, Digest, u64, u32);

/// A file's digest, its mode in four bytes and its size in eight: all there is to say about it.
pub(super) fn file_key(digest: &Digest, mode: u32, size: u64) -> [u8; FILE_KEY_LENGTH] {
    let mut key = [0; FILE_KEY_LENGTH];
    let (to_digest, rest) = key.split_at_mut(DIGEST_LENGTH);
    let (to_mode, to_size) = rest.split_at_mut(size_of::<u32>());
    to_digest.copy_from_slice(&digest.0);
    to_mode.copy_from_slice(&mode.to_be_bytes());
    to_size.copy_from_slice(&size.to_be_bytes());
    key
}

/// Whether it is the key of what is kept in memory.
pub(super) fn is_key_of(key: &[u8], kept: &Kept) -> bool {
    let mode = match kept {
        Kept::File { mode, .. } => Some(*mode),
        Kept::Elsewhere(file) => Some(file.mode),
        Kept::Tree(_) => None,
    };
    key.starts_with(&kept.digest().0) && mode_of(key) == mode
}

/// Stores contents, each unless it is there.
pub(super) struct Contents<'a> {
    find: CachedStatement<'a>,
    insert: CachedStatement<'a>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(transaction: &'a Connection) -> Attempt<Self> {
        let find = transaction.prepare_cached("SELECT 1 FROM content WHERE key = ?1")?;
        let insert = transaction.prepare_cached("INSERT INTO content (key, size, files) VALUES (?1, ?2, ?3)")?;
        Ok(Self { find, insert })
    }

    /// Stores the content, unless its key says all of it, and returns its key.
    pub(super) fn save(&mut self, content: &Content) -> Attempt<Vec<u8>> {
        let files = match content {
            Content::File(file) => return Ok(file_key(&file.digest, file.mode, file.size).to_vec()),
            Content::Tree(files) => files,
        };
        let key = content.digest().0.to_vec();
        // A large tree is not put into JSON only to be thrown away.
        if !self.find.exists([&key])? {
            let rows = files.iter().map(|at| (&at.path, at.file.digest, at.file.size, at.file.mode));
            let rows = serde_json::to_string(&rows.collect::<Vec<_>>())?;
            self.insert.execute(params![key, content.size().cast_signed(), rows])?;
        }
        Ok(key)
    }
}

/// Reads the columns `key`, `content.size` and `content.files`, which begin at `column`.
pub(super) fn load(row: &Row<'_>, column: usize, stored: &Stored) -> Attempt<Option<Content>> {
    Ok(load_kept(row, column, stored)?.map(|kept| kept.content(stored)))
}

/// The same, without the place in the content store of a unit that is one file: it follows from the digest.
pub(super) fn load_kept(row: &Row<'_>, column: usize, stored: &Stored) -> Attempt<Option<Kept>> {
    let Some(key) = row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)? else { return Ok(None) };
    if let (Some(mode), Some(size)) = (mode_of(key), size_in(key)) {
        return Ok(Some(Kept::File { digest: digest_of(key)?, size, mode }));
    }
    let Some(size) = row.get::<_, Option<i64>>(column + 1)? else {
        return Err(Fault::Unexpected("a content is missing".to_owned()));
    };
    if let Some(mode) = mode_of(key) {
        return Ok(Some(Kept::File { digest: digest_of(key)?, size: size.cast_unsigned(), mode }));
    }
    let files = tree_files(&row.get::<_, String>(column + 2)?)?;
    let files = files
        .into_iter()
        .map(|(path, digest, size, mode)| TreeFile { path, file: CapturedFile::stored(digest, size, mode, stored) });
    Ok(Some(Kept::Tree(files.collect::<Arc<[_]>>())))
}

/// The files named by the columns `key` and `content.files`, which begin at `column`.
pub(super) fn file_digests(row: &Row<'_>, column: usize) -> Attempt<Vec<Digest>> {
    let key = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    if mode_of(key).is_some() {
        return Ok(vec![digest_of(key)?]);
    }
    // What is missing there, somebody who needs it will notice.
    let Some(files) = row.get::<_, Option<String>>(column + 1)? else { return Ok(Vec::new()) };
    Ok(tree_files(&files)?.into_iter().map(|(_, digest, _, _)| digest).collect())
}

/// The identity of the content under this key, or a bare digest.
pub(super) fn digest_of(key: &[u8]) -> Attempt<Digest> {
    let digest = key.first_chunk::<DIGEST_LENGTH>();
    digest.map(|bytes| Digest(*bytes)).ok_or_else(|| Fault::Unexpected("a digest is too short".to_owned()))
}

/// The digest in a column that may be empty.
pub(super) fn optional_digest(row: &Row<'_>, column: usize) -> Attempt<Option<Digest>> {
    let key = row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
    key.map(digest_of).transpose()
}

/// The mode in a file's key; `None` for a tree.
fn mode_of(key: &[u8]) -> Option<u32> {
    let mode = key.get(DIGEST_LENGTH..)?.first_chunk()?;
    Some(u32::from_be_bytes(*mode))
}

/// The size in a file's key; older ones have none, and a row that tells it.
fn size_in(key: &[u8]) -> Option<u64> {
    let size = key.get(DIGEST_LENGTH + size_of::<u32>()..)?.first_chunk()?;
    Some(u64::from_be_bytes(*size))
}

fn tree_files(json: &str) -> Attempt<Vec<FileRow>> {
    Ok(serde_json::from_str(json)?)
}

/// A path as a column: the bytes that the file system gave.
pub(super) fn path_bytes(path: &UnitPath) -> &[u8] {
    path.as_path().as_os_str().as_encoded_bytes()
}

/// The path in a column.
pub(super) fn load_path(row: &Row<'_>, column: usize) -> Attempt<UnitPath> {
    path_of(row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?)
}

/// The path that has these bytes.
pub(super) fn path_of(bytes: &[u8]) -> Attempt<UnitPath> {
    let path = os_str(bytes).and_then(UnitPath::new);
    path.ok_or_else(|| Fault::Unexpected("a path is not relative".to_owned()))
}

#[cfg(unix)]
fn os_str(bytes: &[u8]) -> Option<&OsStr> {
    Some(std::os::unix::ffi::OsStrExt::from_bytes(bytes))
}

#[cfg(not(unix))]
fn os_str(bytes: &[u8]) -> Option<&OsStr> {
    std::str::from_utf8(bytes).ok().map(OsStr::new)
}

/// The kind of change in a column.
pub(super) fn load_kind(row: &Row<'_>, column: usize) -> Attempt<ChangeKind> {
    let word: String = row.get(column)?;
    let all = [ChangeKind::Added, ChangeKind::Modified, ChangeKind::Touched, ChangeKind::Removed];
    let found = all.into_iter().find(|kind| kind.as_str() == word);
    found.ok_or_else(|| Fault::Unexpected(format!("{word} is no kind of change")))
}

/// The JSON in a column that may be empty.
pub(super) fn load_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> Attempt<Option<T>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.as_deref().map(serde_json::from_str).transpose()?)
}

/// A number counted from 0, as a column.
pub(super) fn index(number: usize) -> i64 {
    // No list in memory is longer than this can count.
    i64::try_from(number).unwrap_or(i64::MAX)
}
