//! How an audio thread wakes the loop: one byte into a socket, which neither allocates nor locks.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// A bell that many may ring.
#[derive(Clone, Debug)]
pub struct Bell(Arc<UnixStream>);

/// Whoever hears it.
#[derive(Debug)]
pub struct Listener(UnixStream);

impl Bell {
    /// A bell that has not rung, and its one listener.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn new() -> std::io::Result<(Self, Listener)> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok((Bell(Arc::new(bell)), Listener(ear)))
    }

    /// Rings.
    pub fn ring(&self) {
        (&*self.0).write_all(&[1]).ok(); // full means that it rings already
    }
}

impl Listener {
    /// The listener for a loop; call it in the runtime that will wait.
    ///
    /// # Errors
    /// If the runtime does not take it.
    pub fn listen(self) -> std::io::Result<Ear> {
        tokio::net::UnixStream::from_std(self.0).map(Ear)
    }
}

/// A listener that can wait.
#[derive(Debug)]
pub struct Ear(tokio::net::UnixStream);

impl Ear {
    /// Waits until it rings. May be dropped while it waits.
    pub async fn rings(&self) {
        loop {
            if self.0.readable().await.is_err() {
                return std::future::pending().await; // no bell is left to ring
            }
            match self.0.try_read(&mut [0; 64]) {
                Ok(0) => return std::future::pending().await,
                Ok(_) => return,
                Err(_) => {} // it seemed to ring
            }
        }
    }
}
