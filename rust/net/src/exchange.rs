//! One request and its reply.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, HttpInfo, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout};

use crate::connect::Connector;
use crate::memory::{Bytes, Recycled};
use crate::{Failure, Get, HEADERS, Head, Kind, Limits, Reply};

/// A reply that trickles holds a place in the budget. Far below what a share of a slow line gives each request.
const MIN_BYTES_PER_S: f64 = 1024.0;
/// Of the body that explains a status so much is kept, and so much read, to keep the connection.
const EXPLANATION_NBYTES: usize = 1 << 12;
const DRAINED_NBYTES: u64 = 1 << 16;
/// How long an idle connection is kept, and how many are remembered to have been used.
const KEPT: Duration = Duration::from_secs(30);
const MAX_REMEMBERED: usize = 1 << 12;
/// A body is given so much memory before its bytes have come.
const MAX_TRUSTED_NBYTES: u64 = 1 << 24;

/// The connections of one client.
pub struct Connections {
    client: Client<Connector, Empty<bytes::Bytes>>,
    idle: Duration,
    used: Mutex<HashSet<(SocketAddr, SocketAddr)>>,
    memory: Arc<Recycled>,
}

impl Connections {
    /// No connection yet.
    pub fn new(idle: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .http1_read_buf_exact_size(1 << 17)
            .build(Connector::new());
        Self { client, idle, used: Mutex::default(), memory: Arc::default() }
    }

    /// The reply to a request. Sends it once more where a kept connection turns out to be closed.
    pub async fn exchange(&self, get: &Get) -> Result<Reply, Failure> {
        let response = match self.head(get).await {
            Err((failure, true)) if matches!(failure.kind, Kind::Closed | Kind::Lost) => self.head(get).await,
            outcome => outcome,
        };
        let response = response.map_err(|(failure, _)| failure)?;
        let head = head_of(&response);
        let body = self.body(response, head.status, get.limits).await?;
        Ok(Reply { head, body })
    }

    /// The head of the reply. With a failure: whether the connection had been used before.
    async fn head(&self, get: &Get) -> Result<Response<Incoming>, (Failure, bool)> {
        let mut request = request(get).ok_or((Kind::Url.into(), false))?;
        let captured = capture_connection(&mut request);
        let mut connection = captured.clone();
        let connected = async { drop(connection.wait_for_connection_metadata().await) };
        let mut response = pin!(self.client.request(request));
        // Until there is a connection, the time is the connector's.
        let result = tokio::select! {
            biased;
            result = &mut response => Ok(result),
            () = connected => timeout(self.idle, &mut response).await,
        };
        let reused = self.is_reused(&captured);
        match result {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err((Failure::of(&error, None), reused)),
            Err(_) => Err((Kind::Timeout.into(), reused)),
        }
    }

    /// Whether a connection had been used before; notes that it is.
    fn is_reused(&self, captured: &CaptureConnection) -> bool {
        let mut extensions = http::Extensions::new();
        if let Some(connected) = captured.connection_metadata().as_ref() {
            connected.get_extras(&mut extensions);
        }
        let Some(info) = extensions.get::<HttpInfo>() else { return false };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() > MAX_REMEMBERED {
            used.clear();
        }
        !used.insert((info.local_addr(), info.remote_addr()))
    }

    async fn body(&self, response: Response<Incoming>, status: u16, limits: Limits) -> Result<Option<Bytes>, Failure> {
        let length = response.body().size_hint().exact();
        let limit = match status {
            200 if limits.sized && length.is_none() => return Ok(None),
            200 => limits.whole,
            206 => limits.part,
            201..300 => return Ok(None),
            _ => return Ok(Some(self.explanation(response.into_body()).await)),
        };
        if length.is_some_and(|nbytes| nbytes > limit) {
            return Ok(None);
        }
        self.read(response.into_body(), status, length, limit).await.map(Some)
    }

    /// Reads to the end, or past `limit` bytes. Silence and a trickle are timeouts.
    async fn read(&self, mut body: Incoming, status: u16, length: Option<u64>, limit: u64) -> Result<Bytes, Failure> {
        let failed = |kind| Failure { kind, status: Some(status), errno: None };
        let expected = length.unwrap_or(limit.min(1 << 16)).min(MAX_TRUSTED_NBYTES);
        let mut bytes = self.memory.take(usize::try_from(expected).unwrap_or_default());
        let (mut nbytes, mut since, mut before) = (0, Instant::now(), 0);
        while nbytes <= limit {
            let frame = match timeout(self.idle, body.frame()).await {
                Err(_) => return Err(failed(Kind::Stalled)),
                Ok(None) => break,
                Ok(Some(Err(error))) => return Err(Failure::of(&error, Some(status))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(data) = frame.data_ref() else { continue };
            // One byte past the limit says that there are more.
            let room = usize::try_from((limit - nbytes).saturating_add(1)).unwrap_or(usize::MAX);
            let data = &data[..data.len().min(room)];
            bytes.extend(data);
            nbytes += data.len() as u64;
            let elapsed = since.elapsed();
            if elapsed >= self.idle {
                let trickles = ((nbytes - before) as f64) < MIN_BYTES_PER_S * elapsed.as_secs_f64();
                if trickles && nbytes < limit {
                    return Err(failed(Kind::Stalled));
                }
                (since, before) = (Instant::now(), nbytes);
            }
        }
        Ok(bytes)
    }

    /// The start of a body that only explains a status; whatever happens to it, the status stands.
    async fn explanation(&self, mut body: Incoming) -> Bytes {
        let (mut start, mut kept) = (self.memory.take(0), 0);
        let drained = async {
            let mut nbytes = 0;
            while nbytes <= DRAINED_NBYTES
                && let Some(Ok(frame)) = body.frame().await
            {
                if let Some(data) = frame.data_ref() {
                    nbytes += data.len() as u64;
                    let more = data.len().min(EXPLANATION_NBYTES - kept);
                    start.extend(&data[..more]);
                    kept += more;
                }
            }
        };
        let _ = timeout(self.idle, drained).await;
        start
    }
}

fn request(get: &Get) -> Option<Request<Empty<bytes::Bytes>>> {
    let mut request = Request::get(get.url.as_str());
    for (name, value) in &get.headers {
        request = request.header(name.as_str(), HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    request.body(Empty::new()).ok()
}

fn head_of(response: &Response<Incoming>) -> Head {
    let found = HEADERS.iter().filter_map(|&name| {
        let value = response.headers().get(name)?;
        Some((name, String::from_utf8_lossy(value.as_bytes()).into_owned()))
    });
    Head { status: response.status().as_u16(), headers: found.collect() }
}
