//! A bare repository that begins where another one is: with its references, and its objects where they are.
#![expect(clippy::disallowed_methods, reason = "this is a door to repositories")]

use std::fs;
use std::io;
use std::path::Path;

use walkdir::WalkDir;

/// What a bare repository consists of besides its objects.
const FILES: [&str; 4] = ["HEAD", "config", "packed-refs", "shallow"];

/// Makes `copy` a copy of the bare repository `original` whose objects stay there; only new ones will be in the copy.
/// Nothing is made where there is no original.
///
/// # Errors
/// The original cannot be read, or the copy cannot be written.
pub(crate) fn seed(original: &Path, copy: &Path) -> io::Result<()> {
    if !original.join("HEAD").is_file() {
        return Ok(());
    }
    fs::create_dir_all(copy.join("objects/info"))?;
    fs::create_dir_all(copy.join("objects/pack"))?;
    let mut objects = original.join("objects").into_os_string();
    objects.push("\n");
    fs::write(copy.join("objects/info/alternates"), objects.as_encoded_bytes())?;
    fs::create_dir_all(copy.join("refs"))?;
    for entry in WalkDir::new(original.join("refs")).follow_links(false) {
        let entry = entry?;
        let Ok(below) = entry.path().strip_prefix(original) else { continue };
        if entry.file_type().is_dir() {
            fs::create_dir_all(copy.join(below))?;
        } else {
            copy_if_there(entry.path(), &copy.join(below))?;
        }
    }
    // After the loose ones: what is packed meanwhile is in both.
    for name in FILES {
        copy_if_there(&original.join(name), &copy.join(name))?;
    }
    Ok(())
}

fn copy_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::copy(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
