//! What an error of hyper, rustls or the system means.

use std::error::Error;
use std::io::ErrorKind;

use crate::connect::Unreachable;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The URL or a header is none that HTTP allows.
    Url,
    /// The name of the server is not known.
    Name,
    /// No connection.
    Connect,
    /// The certificate of the server is not valid for it.
    Certificate,
    /// No TLS with what is at the other end.
    Tls,
    /// The system has no certificates to trust.
    Trust,
    /// No connection or no reply in time.
    Timeout,
    /// The body stood still.
    Stalled,
    /// The connection was closed before a reply.
    Closed,
    /// The body ended too early.
    Short,
    /// The connection was lost.
    Lost,
    /// What came is not HTTP.
    NotHttp,
    /// A bug here or in a library below.
    Internal,
}

/// Why there is no reply: nothing of the error's text, which may hold a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: Kind,
    /// The status, if the head of a reply had come.
    pub status: Option<u16>,
    /// What the system says.
    pub errno: Option<i32>,
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self { kind, status: None, errno: None }
    }
}

impl Failure {
    /// What an error means that came before the head of a reply (`status` None) or after it.
    pub(crate) fn of(error: &(dyn Error + 'static), status: Option<u16>) -> Self {
        let (mut kind, mut errno, mut connecting) = (None, None, false);
        for error in std::iter::successors(Some(error), |error| cause(*error)) {
            if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
                connecting |= error.is_connect();
            } else if let Some(error) = error.downcast_ref::<std::io::Error>() {
                errno = errno.or(error.raw_os_error());
                if error.kind() == ErrorKind::UnexpectedEof {
                    kind = Some(Kind::Closed);
                }
            } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
                kind = Some(of_tls(error));
            } else if let Some(error) = error.downcast_ref::<Unreachable>() {
                kind = Some(match error {
                    Unreachable::Name => Kind::Name,
                    Unreachable::Timeout => Kind::Timeout,
                    Unreachable::NoCertificates => Kind::Trust,
                });
            } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
                if error.is_parse() {
                    kind = Some(Kind::NotHttp);
                } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
                    kind = Some(if status.is_some() { Kind::Short } else { Kind::Closed });
                }
            }
        }
        Self { kind: kind.unwrap_or(if connecting { Kind::Connect } else { Kind::Lost }), status, errno }
    }
}

/// The error that an error came from. What an error of the system wraps is one; its `source` leaves that out.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn of_tls(error: &rustls::Error) -> Kind {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Kind::Certificate,
        _ => Kind::Tls,
    }
}
