//! `.pickupignore` files that do not come from a directory on disk: those of a commit.

use std::collections::BTreeMap;

use super::{PICKUPIGNORE, PICKUPIGNORE_MAX, RuleFile, Rules, compile};
use crate::path::UnitPath;

/// The `.pickupignore` files that counted before, so that they can count again.
#[derive(Debug)]
#[must_use]
pub(crate) struct Former(BTreeMap<(usize, UnitPath), RuleFile>);

impl Rules {
    /// Makes `texts`, by directory, all the `.pickupignore` files of the root; gives what counted before, and which lines are
    /// no rules.
    pub(crate) fn exchange_pickupignores(
        &mut self,
        root: usize,
        texts: BTreeMap<UnitPath, Vec<u8>>,
    ) -> (Former, Vec<String>) {
        let former = self.take(root);
        let mut problems = Vec::new();
        for (directory, text) in texts {
            let name = directory.join(PICKUPIGNORE);
            let (rules, wrong) = compile(&name, &text);
            problems.extend(wrong);
            self.files.insert((root, directory), RuleFile { text, rules });
        }
        (former, problems)
    }

    /// Makes `former` count again, and nothing else for that root.
    pub(crate) fn restore_pickupignores(&mut self, root: usize, former: Former) {
        drop(self.take(root));
        self.files.extend(former.0);
    }

    /// Whether a `.pickupignore` of so many bytes is too long to count.
    pub(crate) fn is_too_long(size: u64) -> bool {
        size > PICKUPIGNORE_MAX
    }

    fn take(&mut self, root: usize) -> Former {
        self.forget_last();
        Former(self.files.extract_if(.., |(of, _), _| *of == root).collect())
    }
}
