//! Lines over the socket: bounded when they are read, whole when they are written.

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::invalid;
use crate::error::{Error, ErrorKind, Result};

/// Reads lines of at most `max` bytes.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R, max: usize) -> Self {
        Self { reader: BufReader::new(reader), max }
    }

    /// The next line without its end; `None` after the last one.
    ///
    /// # Errors
    /// The connection broke, or the line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        // One more than is allowed, to tell a line that is too long; and one for its end.
        let mut limited = (&mut self.reader).take(self.max as u64 + 2);
        let read = limited.read_until(b'\n', &mut line).await.map_err(|error| broken("read from", error))?;
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        match read {
            0 => Ok(None),
            _ if line.len() > self.max => Err(invalid(&format!("read a line of more than {} bytes", self.max))),
            _ => Ok(Some(line)),
        }
    }
}

/// Sends `value` as one line.
pub(crate) async fn send(writer: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value).map_err(|error| invalid("write a message").caused_by(error))?;
    line.push(b'\n');
    writer.write_all(&line).await.map_err(|error| broken("write to", error))
}

fn broken(action: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{action} the control socket")).caused_by(error).transient()
}
