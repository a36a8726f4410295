//! A captured file as the body of a request: streamed, never whole in memory; and its SHA-256.
#![expect(clippy::disallowed_methods, reason = "this is the door to the captured file")]

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use ring::digest;
use tokio::sync::mpsc;

use crate::deploy::lane::Stop;
use crate::error::{IoContext, Result};
use crate::source::git::transport::credentials::base64;

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// How many chunks may wait for the network.
const AHEAD: usize = 4;

/// The SHA-256 of a file, in base64.
pub(super) fn sha256(path: &Path, stop: &Stop) -> Result<String> {
    let mut file = File::open(path).doing("open", path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; CHUNK];
    loop {
        stop.check()?;
        match file.read(&mut buffer).doing("read", path)? {
            0 => return Ok(base64(context.finish().as_ref())),
            read => context.update(&buffer[..read]),
        }
    }
}

/// A file of known size, read by a thread of its own as fast as it is taken.
pub(super) struct FileBody {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl FileBody {
    /// `size` bytes of the file; one that is shorter fails, and what is longer is cut.
    pub(super) fn open(path: &Path, size: u64) -> Result<Self> {
        let file = File::open(path).doing("open", path)?;
        let (sender, chunks) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || feed(file.take(size), &sender));
        Ok(Self { chunks, left: size })
    }
}

/// Reads until the end, or until nobody wants it any more.
fn feed(mut file: impl Read, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut buffer = vec![0; CHUNK];
        let chunk = match file.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => {
                buffer.truncate(read);
                Ok(Bytes::from(buffer))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || is_last {
            return;
        }
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.chunks.poll_recv(cx).map(|chunk| match chunk {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.left > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
