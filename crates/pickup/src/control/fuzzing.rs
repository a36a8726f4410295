//! For fuzzers: what a peer sends, on either end.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::{Lines, REQUEST_MAX, Request, Response};

/// Everything that a client sends: each line is a request or an error, and a request survives being sent again.
pub fn request(bytes: &[u8]) {
    for line in lines(bytes) {
        let Ok(request) = Request::from_json(&line) else { continue };
        let sent = serde_json::to_vec(&request.to_json().expect("a request is JSON")).expect("JSON");
        assert!(!sent.contains(&b'\n'), "a request is one line");
        assert_eq!(Request::from_json(&sent).expect("what is sent is a request"), request);
    }
}

/// Everything that a daemon sends: an answer survives being sent again.
pub fn answer(bytes: &[u8]) {
    for line in lines(bytes) {
        let Ok(answer) = serde_json::from_slice::<Response>(&line) else { continue };
        let sent = serde_json::to_vec(&answer).expect("an answer is JSON");
        assert!(!sent.contains(&b'\n'), "an answer is one line");
        assert_eq!(serde_json::from_slice::<Response>(&sent).expect("what is sent is an answer"), answer);
    }
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = Lines::new(bytes, REQUEST_MAX);
    let mut found = Vec::new();
    loop {
        // Bytes in memory are never waited for.
        let Poll::Ready(line) = pin!(lines.next()).poll(&mut Context::from_waker(Waker::noop())) else { return found };
        match line {
            Ok(Some(line)) => {
                assert!(line.len() <= REQUEST_MAX, "a line is bounded");
                found.push(line);
            }
            Ok(None) | Err(_) => return found,
        }
    }
}
