//! A connection that is passed on: bytes both ways, until both sides have ended.
//!
//! Between sockets they never leave the kernel (`splice` through a pipe); other streams go through a buffer. Nothing is read
//! before what was read is written, so a slow reader slows its writer. When one side ends, the other is told so, and may go on.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tidegate_core::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use crate::clock::Clock;

/// Bytes that go through a buffer at once.
const BUFFER_BYTES: usize = 16 * 1024;
/// Bytes that a pipe is asked to take; the kernel may refuse and keep its 64 KiB.
const PIPE_BYTES: usize = 256 * 1024;
/// Pipes that a thread has open at once. A pipe is borrowed while bytes are in it, so this is the number of connections whose
/// readers are slow at the same moment; further ones go through a buffer.
const PIPES_MAX: usize = 512;
/// Pipes that are kept for the next connection.
const PIPES_KEPT: usize = 16;

/// What has moved on a connection.
#[derive(Debug)]
pub struct Moved {
    clock: Clock,
    last: Cell<Instant>,
    /// Of the first stream to the second, and back.
    bytes: [Cell<u64>; 2],
}

/// A direction.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// From the first stream to the second.
    There,
    /// From the second to the first.
    Back,
}

impl Moved {
    /// Nothing so far.
    pub fn new(clock: Clock) -> Self {
        Moved {
            clock,
            last: Cell::new(clock.now()),
            bytes: Default::default(),
        }
    }

    /// Bytes were written.
    pub fn note(&self, way: Way, bytes: usize) {
        self.last.set(self.clock.now());
        let count = &self.bytes[way as usize];
        count.set(count.get() + bytes as u64);
    }

    /// When something moved last.
    pub fn last(&self) -> &Cell<Instant> {
        &self.last
    }

    /// Bytes there and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes[0].get(), self.bytes[1].get())
    }
}

/// Both ways through a buffer.
///
/// # Errors
/// Of either stream; the other is left as it is.
pub async fn through_memory<A, B>(a: &mut A, b: &mut B, moved: &Moved) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let ((a_read, a_write), (b_read, b_write)) = (tokio::io::split(a), tokio::io::split(b));
    let there = pump(a_read, b_write, |bytes| moved.note(Way::There, bytes));
    let back = pump(b_read, a_write, |bytes| moved.note(Way::Back, bytes));
    futures_util::future::try_join(there, back).await.map(drop)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: impl Fn(usize),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved(count);
    }
}

/// Both ways in the kernel.
///
/// # Errors
/// Of either socket; the other is left as it is.
pub async fn through_kernel(a: &TcpStream, b: &TcpStream, moved: &Moved) -> io::Result<()> {
    through_pipes(a, b, moved, PIPES_MAX).await
}

async fn through_pipes(a: &TcpStream, b: &TcpStream, moved: &Moved, pipes_max: usize) -> io::Result<()> {
    let there = carry(a, b, |bytes| moved.note(Way::There, bytes), pipes_max);
    let back = carry(b, a, |bytes| moved.note(Way::Back, bytes), pipes_max);
    futures_util::future::try_join(there, back).await.map(drop)
}

async fn carry(from: &TcpStream, to: &TcpStream, moved: impl Fn(usize), pipes_max: usize) -> io::Result<()> {
    loop {
        from.readable().await?;
        let filled = match Pipe::borrow(pipes_max) {
            Some(pipe) => {
                let filled = from.try_io(Interest::READABLE, || pipe.fill(from));
                if let Ok(count) = filled {
                    pipe.empty_into(to, count, &moved).await?;
                }
                pipe.give_back();
                filled
            }
            None => piece(from, to, &moved).await,
        };
        match filled {
            Ok(0) => return SockRef::from(to).shutdown(Shutdown::Write),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        // Sockets that are always ready would keep the thread for themselves.
        tokio::task::coop::consume_budget().await;
    }
}

/// One piece through a buffer, where there is no pipe.
async fn piece(from: &TcpStream, to: &TcpStream, moved: &impl Fn(usize)) -> io::Result<usize> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let count = from.try_read(&mut buffer)?;
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        to.writable().await?;
        match to.try_write(rest) {
            Ok(written) => {
                moved(written);
                rest = &rest[written..];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

thread_local! {
    static KEPT: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A pipe, empty when it is borrowed and when it is given back. One that is dropped with bytes in it is closed.
struct Pipe {
    /// `None` once it was given back.
    ends: Option<(OwnedFd, OwnedFd)>,
}

impl Pipe {
    /// A kept one, or a new one; `None` where there are too many, or the process has no files left.
    fn borrow(max: usize) -> Option<Pipe> {
        if OPEN.get() >= max {
            return None;
        }
        let kept = KEPT.with_borrow_mut(Vec::pop);
        let ends = match kept {
            Some(ends) => ends,
            None => {
                let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
                let _ = fcntl_setpipe_size(&write, PIPE_BYTES); // a smaller one does too
                (read, write)
            }
        };
        OPEN.set(OPEN.get() + 1);
        Some(Pipe { ends: Some(ends) })
    }

    fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        let (_, write) = self.ends();
        Ok(splice(
            from,
            None,
            write,
            None,
            PIPE_BYTES,
            SpliceFlags::MOVE | SpliceFlags::NONBLOCK,
        )?)
    }

    async fn empty_into(&self, to: &TcpStream, mut count: usize, moved: &impl Fn(usize)) -> io::Result<()> {
        let (read, _) = self.ends();
        while count > 0 {
            to.writable().await?;
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            let written = to.try_io(Interest::WRITABLE, || Ok(splice(read, None, to, None, count, flags)?));
            match written {
                Ok(0) => return Err(Errno::PIPE.into()),
                Ok(written) => {
                    moved(written);
                    count -= written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn give_back(mut self) {
        if let Some(ends) = self.ends.take() {
            KEPT.with_borrow_mut(|kept| {
                if kept.len() < PIPES_KEPT {
                    kept.push(ends);
                }
            });
        }
    }

    fn ends(&self) -> &(OwnedFd, OwnedFd) {
        self.ends.as_ref().expect("a borrowed pipe has its ends")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        OPEN.set(OPEN.get() - 1);
    }
}

#[cfg(test)]
mod tests;
