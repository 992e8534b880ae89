//! From a URL to a connection: names are looked up once for all who wait for them, certificates of the system are read
//! when TLS is first needed, and nobody waits for ever.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tower_service::Service;

/// For one address of a server.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection, with its name, all its addresses, and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the addresses of a name hold.
const NAME_TTL: Duration = Duration::from_secs(60);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Why there is no connection, where the libraries below do not say it.
#[derive(Debug)]
pub enum Unreachable {
    /// The name of the server is not known.
    Name,
    /// It took too long.
    Timeout,
    /// The system trusts nobody.
    NoCertificates,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self:?}")
    }
}

impl std::error::Error for Unreachable {}

/// Connects to http and https URLs.
#[derive(Clone)]
pub struct Connector {
    http: HttpConnector<Resolver>,
    https: Arc<OnceCell<HttpsConnector<HttpConnector<Resolver>>>>,
}

impl Connector {
    pub fn new() -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver::default());
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(ADDRESS_TIMEOUT));
        http.set_keepalive(Some(Duration::from_secs(30)));
        Self { http, https: Arc::default() }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Boxed<Stream>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let mut http = self.http.clone();
        let https = Arc::clone(&self.https);
        let connected = async move {
            if url.scheme_str() != Some("https") {
                return Ok(MaybeHttpsStream::Http(http.call(url).await?));
            }
            let mut https = https.get_or_try_init(|| with_tls(http)).await?.clone();
            https.call(url).await
        };
        Box::pin(
            async move { tokio::time::timeout(CONNECT_TIMEOUT, connected).await.map_err(|_| Unreachable::Timeout)? },
        )
    }
}

/// Trusts what the system trusts, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
async fn with_tls(http: HttpConnector<Resolver>) -> Result<HttpsConnector<HttpConnector<Resolver>>, BoxError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(Unreachable::NoCertificates.into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(http))
}

/// Looks names up by the system, each once in a while; the address to begin with changes from connection to connection.
#[derive(Clone, Default)]
pub struct Resolver {
    names: Arc<Mutex<HashMap<String, Arc<Found>>>>,
    turn: Arc<AtomicUsize>,
}

struct Found {
    since: Instant,
    addresses: OnceCell<Vec<SocketAddr>>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Unreachable>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|_, found| found.since.elapsed() < NAME_TTL);
            let new = || Arc::new(Found { since: Instant::now(), addresses: OnceCell::new() });
            Arc::clone(names.entry(name.as_str().to_owned()).or_insert_with(new))
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let look_up = async || Ok(GaiResolver::new().call(name).await.map_err(|_| Unreachable::Name)?.collect());
            let mut addresses: Vec<SocketAddr> = found.addresses.get_or_try_init(look_up).await?.clone();
            let count = addresses.len().max(1);
            addresses.rotate_left(turn % count);
            Ok(addresses.into_iter())
        })
    }
}
