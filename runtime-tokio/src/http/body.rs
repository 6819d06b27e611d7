//! Bodies in both directions. They are pulled, frame by frame, by whoever writes them, so a slow reader slows the sender
//! and nothing is stored here.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tidegate_core::request::fault::ClientFault;
use tidegate_core::request::retry::BodySent;
use tidegate_core::time::Instant;

use super::client::Moving;
use super::coder::{Coder, Step};
use super::exchange::Exchange;
use crate::clock::Clock;

/// Why a body ends early.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client's doing.
    #[error("{0}")]
    Client(#[from] ClientFault),
    /// The endpoint stopped in the middle of its response.
    #[error("the service stopped in the middle of its response")]
    ResponseBroken,
    /// The endpoint sent nothing for too long.
    #[error("the service sent nothing for {0:?}")]
    ResponseIdle(Duration),
    /// The try that this body was sent with is over.
    #[error("this try is over")]
    TryOver,
}

/// The client's body on its way to an endpoint. Survives a try that took nothing of it.
#[derive(Debug)]
pub(crate) struct RequestBody {
    shared: Option<Rc<SharedBody>>,
    generation: u32,
}

/// What the tries of one request share of its body.
#[derive(Debug)]
pub(crate) struct SharedBody {
    incoming: RefCell<Incoming>,
    /// Bytes so far, and how many may be.
    bytes: Cell<u64>,
    bytes_max: u64,
    begun: Cell<bool>,
    ended: Cell<bool>,
    fault: Cell<Option<ClientFault>>,
    last_frame: Cell<Instant>,
    generation: Cell<u32>,
    clock: Clock,
    moving: RefCell<Option<Moving>>,
    expects: RefCell<Option<Expecting>>,
}

/// How long an app that was told `Expect: 100-continue` may stay silent before it gets the body anyway (RFC 9110 §10.1.1:
/// not for ever).
const EXPECT_MAX: Duration = Duration::from_secs(1);

/// Opens when the app asks for the body. hyper tells so from a callback that must be `Send`, hence the atomics.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }
}

#[derive(Debug)]
struct Expecting {
    gate: Arc<Gate>,
    until: Pin<Box<tokio::time::Sleep>>,
}

impl Expecting {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.gate.waker.register(cx.waker());
        if self.gate.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.until.as_mut().poll(cx)
    }
}

impl SharedBody {
    /// The body of a request, `None` where there is none. `bytes_max` 0: no limit.
    pub(crate) fn new(
        incoming: Incoming,
        bytes_max: u64,
        clock: Clock,
        moving: impl FnOnce() -> Moving,
    ) -> Option<Rc<Self>> {
        if incoming.is_end_stream() {
            return None;
        }
        Some(Rc::new(SharedBody {
            incoming: RefCell::new(incoming),
            bytes: Cell::new(0),
            bytes_max: if bytes_max == 0 { u64::MAX } else { bytes_max },
            begun: Cell::new(false),
            ended: Cell::new(false),
            fault: Cell::new(None),
            last_frame: Cell::new(clock.now()),
            generation: Cell::new(0),
            clock,
            moving: RefCell::new(Some(moving())),
            expects: RefCell::new(None),
        }))
    }

    /// The client's fault that ended the body, if one did.
    pub(crate) fn fault(&self) -> Option<ClientFault> {
        self.fault.get()
    }

    /// When the last piece of it was sent on; `None` while there is more to come.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended.get().then(|| self.last_frame.get())
    }

    /// When a piece of it was sent on last.
    pub(crate) fn last_frame(&self) -> Instant {
        self.last_frame.get()
    }

    fn sent(&self) -> BodySent {
        if self.begun.get() {
            BodySent::Begun
        } else {
            BodySent::Unsent
        }
    }

    /// Holds the body back until the app asks for it.
    pub(crate) fn expect(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.expects.borrow_mut() = Some(Expecting {
            gate: Arc::clone(&gate),
            until: self.clock.timer(self.clock.now() + EXPECT_MAX),
        });
        gate
    }

    /// The response has ended: a body that nobody asked for never will be sent.
    pub(crate) fn handle_response_end(&self) {
        if let Some(expecting) = &*self.expects.borrow() {
            self.generation.set(self.generation.get() + 1);
            expecting.gate.open();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut expects = self.expects.borrow_mut();
        if let Some(expecting) = &mut *expects {
            ready!(expecting.poll(cx));
            *expects = None;
        }
        drop(expects);
        let frame = match ready!(Pin::new(&mut *self.incoming.borrow_mut()).poll_frame(cx)) {
            None => {
                self.end();
                return Poll::Ready(None);
            }
            Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(ClientFault::BodyIncomplete)))),
            Some(Ok(frame)) => frame,
        };
        self.begun.set(true);
        self.last_frame.set(self.clock.now());
        if let Some(data) = frame.data_ref() {
            let bytes = self.bytes.get() + data.len() as u64;
            self.bytes.set(bytes);
            if bytes > self.bytes_max {
                let fault = ClientFault::BodyTooLarge { max: self.bytes_max };
                return Poll::Ready(Some(Err(self.fail(fault))));
            }
        }
        if self.incoming.borrow().is_end_stream() {
            self.end();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end(&self) {
        self.ended.set(true);
        self.moving.borrow_mut().take();
    }

    fn fail(&self, fault: ClientFault) -> BodyError {
        self.begun.set(true);
        self.fault.set(Some(fault));
        self.end();
        fault.into()
    }
}

impl RequestBody {
    /// For one try. Bodies of earlier tries end at once.
    pub(crate) fn for_try(shared: Option<&Rc<SharedBody>>) -> Self {
        let generation = shared.map_or(0, |shared| {
            shared.generation.set(shared.generation.get() + 1);
            shared.generation.get()
        });
        RequestBody {
            shared: shared.cloned(),
            generation,
        }
    }

    /// How far the body got.
    pub(crate) fn sent(shared: Option<&Rc<SharedBody>>) -> BodySent {
        shared.map_or(BodySent::Absent, |shared| shared.sent())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &self.shared {
            None => Poll::Ready(None),
            Some(shared) if shared.generation.get() != self.generation => Poll::Ready(Some(Err(BodyError::TryOver))),
            Some(shared) => shared.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.incoming.borrow().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.shared.as_ref().map_or_else(
            || SizeHint::with_exact(0),
            |shared| shared.incoming.borrow().size_hint(),
        )
    }
}

/// A response on its way to the client: the endpoint's, or one of our own.
pub(crate) struct ResponseBody {
    source: Source,
    /// Ends with the body, and writes the access line then.
    exchange: Option<Box<Exchange>>,
}

enum Source {
    Endpoint(Endpoint),
    /// The same, compressed on its way.
    Coded(Box<Coded>),
    Own(Option<Bytes>),
}

struct Endpoint {
    incoming: Incoming,
    idle: Option<Pin<Box<tokio::time::Sleep>>>,
    idle_max: Duration,
    last_frame: Instant,
    clock: Clock,
}

struct Coded {
    endpoint: Endpoint,
    coder: Coder,
    trailers: Option<Frame<Bytes>>,
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Endpoint {
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.last_frame = self.clock.now();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyError::ResponseBroken))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => loop {
                // The timer is set once and looked at when it fires: frames only note the time.
                let (clock, at) = (self.clock, self.last_frame + self.idle_max);
                let timer = self.idle.get_or_insert_with(|| clock.timer(at));
                ready!(timer.as_mut().poll(cx));
                if self.clock.now().since(self.last_frame) >= self.idle_max {
                    break Poll::Ready(Some(Err(BodyError::ResponseIdle(self.idle_max))));
                }
                self.idle = None;
            },
        }
    }
}

impl Coded {
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let broken = |_| Poll::Ready(Some(Err(BodyError::ResponseBroken)));
        let data = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        if self.coder.is_finished() {
            return Poll::Ready(self.trailers.take().map(Ok));
        }
        loop {
            match self.endpoint.poll(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => match self.coder.take(&piece) {
                        Ok(Step::Send(bytes)) => return data(bytes),
                        Ok(Step::More) => continue,
                        Ok(Step::Yield) => {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Err(error) => return broken(error),
                    },
                    Err(trailers) => self.trailers = Some(trailers),
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {}
                Poll::Pending => {
                    return match self.coder.pause() {
                        Ok(Some(bytes)) => data(bytes),
                        Ok(None) => Poll::Pending,
                        Err(error) => broken(error),
                    };
                }
            }
            return match self.coder.finish() {
                Ok(Some(bytes)) => data(bytes),
                Ok(None) => Poll::Ready(self.trailers.take().map(Ok)),
                Err(error) => broken(error),
            };
        }
    }
}

impl ResponseBody {
    /// The endpoint's body, compressed where there is a coder.
    pub(crate) fn endpoint(
        incoming: Incoming,
        coder: Option<Coder>,
        idle_max: Duration,
        clock: Clock,
        exchange: Box<Exchange>,
    ) -> Self {
        let endpoint = Endpoint {
            incoming,
            idle: None,
            idle_max,
            last_frame: clock.now(),
            clock,
        };
        let mut body = ResponseBody {
            source: match coder {
                None => Source::Endpoint(endpoint),
                Some(coder) => Source::Coded(Box::new(Coded {
                    endpoint,
                    coder,
                    trailers: None,
                })),
            },
            exchange: Some(exchange),
        };
        body.finish_if_ended();
        body
    }

    /// A body of our own, perhaps empty.
    pub(crate) fn own(text: Bytes, exchange: Box<Exchange>) -> Self {
        let text = (!text.is_empty()).then_some(text);
        ResponseBody {
            source: Source::Own(text),
            exchange: Some(exchange),
        }
    }

    fn finish_if_ended(&mut self) {
        if self.is_end_stream()
            && let Some(exchange) = self.exchange.take()
        {
            exchange.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Endpoint(endpoint) => endpoint.poll(cx),
            Source::Coded(coded) => coded.poll(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(exchange)) = (frame.data_ref(), &mut this.exchange) {
                    exchange.count_bytes(data.len());
                }
                this.finish_if_ended();
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(mut exchange) = this.exchange.take() {
                    exchange.handle_broken(*error);
                }
            }
            Poll::Ready(None) => {
                if let Some(exchange) = this.exchange.take() {
                    exchange.finish();
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Endpoint(endpoint) => endpoint.incoming.is_end_stream(),
            Source::Coded(coded) => coded.coder.is_finished() && coded.trailers.is_none(),
            Source::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Endpoint(endpoint) => endpoint.incoming.size_hint(),
            Source::Coded(_) => SizeHint::default(),
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}
