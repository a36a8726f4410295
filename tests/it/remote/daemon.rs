//! `git daemon`, the server of `git://`.

use std::path::Path;

use super::git;
use super::listener::Listener;

/// Serves every repository below a directory, to everybody.
pub struct GitDaemon {
    listener: Listener,
}

impl GitDaemon {
    pub fn new(root: &Path) -> Self {
        let root = root.to_path_buf();
        let listener = Listener::inetd(move || {
            let mut command = git(&root);
            command.args(["daemon", "--inetd", "--export-all", "--base-path=."]);
            command
        });
        Self { listener }
    }

    /// The address of the repository `name`.
    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.listener.port())
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }
}
