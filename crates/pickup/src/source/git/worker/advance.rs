//! stub
use super::{Failure, FailureKind};
use std::path::Path;
pub(super) fn advance(_repository: &Path, _to: &str) -> Result<(), Failure> {
    Err(Failure::new(FailureKind::Other, "advance: not yet"))
}
