//! Content that was read into memory.
//!
//! Short content goes to what else is recent. Where that is full, it gets its own name at once, because a temporary that is
//! renamed costs twice as much. Both under one lock: nobody of this process sees half of it, and half of one that a crash leaves
//! is told by its digest or its length.

use std::collections::hash_map::Entry;
use std::path::Path;

use super::Store;
use crate::capture::{Digest, stored_path};
use crate::error::{IoContext, Result};

/// What is longer takes too long for the others that wait for the lock, and gains little.
pub(super) const BRIEF_MAX: usize = 16 * 1024;

impl Store {
    /// Takes `content` into the store and pins it; `named` is what errors call it.
    pub(super) fn keep_small(&self, content: &[u8], named: &Path) -> Result<Digest> {
        let (digest, size) = (Digest::of(content), content.len() as u64);
        let is_brief = content.len() <= BRIEF_MAX && self.shelf.below.get().is_none();
        let kept = if is_brief { self.keep_brief(&digest, content) } else { Ok(false) };
        if matches!(kept, Ok(true)) || self.pin_if_stored(&digest, size) {
            return Ok(digest);
        }
        kept?;
        let reserved = self.reserve(size, named)?;
        let temp = self.temp()?;
        self.shelf.fill(&temp.file, content).doing("write", &temp.path)?;
        self.keep(temp, digest, reserved)
    }

    /// Stores `content` and pins it. `false` if it is there already, or cannot be stored in this way.
    fn keep_brief(&self, digest: &Digest, content: &[u8]) -> Result<bool> {
        self.count()?;
        let mut state = self.shelf.state();
        let state = &mut *state;
        let Entry::Vacant(pin) = state.pinned.entry(*digest) else { return Ok(false) };
        if state.recent.length(digest).is_some() {
            return Ok(false);
        }
        // What is stored already needs no room, so a full store is not the end of it.
        let used = state.used.checked_add(content.len() as u64).filter(|used| *used <= self.max);
        let Some(used) = used else { return Ok(false) };
        if state.recent.has_room(content) {
            self.shelf.add(&mut state.recent, digest, content)?;
        } else if !self.shelf.write(&stored_path(&self.shelf.dir, digest), content)? {
            return Ok(false);
        }
        state.used = used;
        pin.insert(1);
        Ok(true)
    }
}
