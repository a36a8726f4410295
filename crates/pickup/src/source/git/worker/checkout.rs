//! stub
use super::{Check, Failure, FailureKind, Reply};
use crate::source::git::transport::Report;
pub(super) fn check(_check: &Check, _report: Report<'_>) -> Result<Reply, Failure> {
    Err(Failure::new(FailureKind::Other, "clone: not yet"))
}
