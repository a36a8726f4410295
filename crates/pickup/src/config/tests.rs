//! What the configuration promises, claim by claim.
