"""Exceptions of obstore -> what happened: obstore shows neither status nor headers, only texts, which are read here.

Out: a `Fault`, judged like the reply of any server by `outcome`. Texts of obstore hold URLs with signatures, passwords
and documents of the server, so none is passed on or chained; `shown` cuts out of unknown ones what may be secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeVar

from voxfetch.errors import (
    CredentialsError,
    ObjectChangedError,
    RangeNotHonouredError,
    StoreError,
    StoreTimeoutError,
    VoxfetchError,
)
from voxfetch.store import TransientError, verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from voxfetch.store import Ask, Reply

__all__ = ["Fault", "Refused", "fault_of", "is_foreign", "outcome", "shown"]

Kind = Literal[
    "status",
    "region",
    "sign-in",
    "whole",
    "no length",
    "no suffix",
    "outside",
    "wrong range",
    "timeout",
    "connection",
    "tls",
    "panic",
    "other",
]

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([A-Za-z]{1,64})\s*</Code>")
_BODY_NCHARS = 4096
# Requests for credentials: our own are GETs of objects and listings.
_SIGN_IN = re.compile(
    r"token request|Error performing (?:POST|PUT) |^[^\n]*(?:External \w+ credential provider|service account)"
    r"|https?://(?:169\.254\.\d+\.\d+|metadata\.google\.internal)[:/]"
)
_METADATA = re.compile(r"https?://(?:169\.254\.\d+\.\d+|metadata\.google\.internal)[:/]|/latest/api/token")
_TEXTS: tuple[tuple[str, Kind], ...] = (
    ("Received redirect without LOCATION", "region"),
    ("Received non-partial response", "whole"),
    ("Range request not supported", "whole"),
    ("Content-Length Header missing", "no length"),
    ("does not support suffix", "no suffix"),
    ("Wanted range starting at", "outside"),
    ("Requested range was invalid", "outside"),
    ("range start must not be greater", "outside"),
    ("CONTENT_RANGE header", "wrong range"),
    ("Content-Range header", "wrong range"),
)
_WRONG_RANGE = re.compile(r"Requested \d+\.\.\d+, got \d+\.\.\d+")
_STATUS_OF = {
    "FileNotFoundError": 404,
    "NotFoundError": 404,
    "PreconditionError": 412,
    "PermissionDeniedError": 403,
    "UnauthenticatedError": 401,
}
_CREDENTIALS = {
    "AccessTokenExpired",
    "AuthenticationFailed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidToken",
    "NoAuthenticationInformation",
    "PublicAccessNotPermitted",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_Error = TypeVar("_Error", bound=VoxfetchError)

_EXPIRED = {"AccessTokenExpired", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}


class Fault(NamedTuple):
    """What went wrong: with `kind` "status" the HTTP status and the start of the body, else `text` cut of secrets."""

    kind: Kind
    status: int | None = None
    body: str = ""
    text: str = ""

    @property
    def codes(self) -> set[str]:
        """Error codes that the server gave."""
        return set(_CODE.findall(self.body))

    @property
    def refuses(self) -> bool:
        """Whether another way to authorize the request may help."""
        if self.kind == "status":
            return self.status in {401, 403} or bool(self.codes & _CREDENTIALS)
        return self.kind == "sign-in"

    @property
    def expired(self) -> bool:
        """Whether newer credentials may help."""
        return bool(self.codes & _EXPIRED) or (self.kind == "status" and self.status == 401)

    @property
    def wrong_region(self) -> bool:
        """Whether the bucket lies in another region than the request went to."""
        return self.kind == "region" or bool(self.codes & {"AuthorizationHeaderMalformed", "PermanentRedirect"})

    @property
    def no_such_range(self) -> bool:
        """Whether a range was refused, as of an empty object, or ignored."""
        return self.kind in {"whole", "outside"} or self.status == 416


class Refused(Exception):  # noqa: N818 - not an error yet
    """A call of obstore that failed; stays inside the object store."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


def is_foreign(error: BaseException) -> bool:
    """Returns whether an exception around a call of obstore is of the call, and not of who waits for it."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def fault_of(error: BaseException, secrets: Sequence[str] = ()) -> Fault:
    """Returns what an exception of obstore says."""
    name = type(error).__name__
    text = str(error)
    if name in {"PanicException", "RustPanic"}:
        return Fault("panic", text=shown(text, secrets))
    headline, _, details = text.partition("\n\nDebug source:")
    before, match, body = _split_status(headline)
    status = int(match) if match else _STATUS_OF.get(name)
    kind: Kind = "other"
    if _SIGN_IN.search(before) or (name == "GenericError" and "PyErr" in details):
        kind = _sign_in(before, status, details)
    elif status is not None:
        kind = "status"
    elif _WRONG_RANGE.search(headline):
        kind = "wrong range"
    else:
        known: list[Kind] = [kind for part, kind in _TEXTS if part in headline]
        kind = known[0] if known else _of_transport(headline, details)
    return Fault(kind, status, body[:_BODY_NCHARS], shown(before, secrets))


def outcome(fault: Fault, ask: Ask) -> Reply | None:
    """Returns None when a fault means that there is no such object, an empty reply for an empty one.

    Raises `TransientError` and the exceptions of `RemoteStore.get` for all else.
    """
    if fault.kind != "status" or fault.status is None:
        _raise(fault, ask)
    if fault.codes & (_CREDENTIALS | _EXPIRED):
        message = "the credentials have expired or are refused"
        if "PublicAccessNotPermitted" in fault.codes:
            message = "the server asks for credentials"
        raise _error(CredentialsError, ask, message, fault.status, "pass credentials that are valid now")
    return verify.refuse(ask, fault.status, {}, fault.body.encode())


def shown(text: str, secrets: Sequence[str] = ()) -> str:
    """Returns the start of a text without URLs, queries, long words that may be keys, and the secrets given."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = re.sub(r"\b[a-z][a-z0-9+.-]*://[^\s\"')]+", "<url>", text, flags=re.IGNORECASE)
    text = re.sub(r"[?&][^\s\"'?&=]+=[^\s\"']*", "", text)
    text = re.sub(r"[A-Za-z0-9+/_=.-]{40,}", "***", text)
    return " ".join(text.split())[:300]


def _split_status(headline: str) -> tuple[str, str, str]:
    match = _STATUS.search(headline)
    return (headline[: match.start()], match[1], headline[match.end() :]) if match else (headline, "", "")


def _sign_in(before: str, status: int | None, details: str) -> Kind:
    """A service for credentials may be down for a while; a machine without one is not a machine that has any."""
    if _METADATA.search(before):
        return "sign-in"
    if status is not None:
        return "sign-in" if status < 500 and status != 429 else "connection"
    kind = _of_transport(before, details)
    return "sign-in" if kind == "other" else kind


def _of_transport(headline: str, details: str) -> Kind:
    if "InvalidCertificate" in details or "invalid peer certificate" in details:
        return "tls"
    if "kind: Timeout" in details or "TimedOut" in details:
        return "timeout"
    return "connection" if "HTTP error" in headline or "HttpError" in details else "other"


def _raise(fault: Fault, ask: Ask) -> NoReturn:
    match fault.kind:
        case "timeout":
            raise TransientError(_error(StoreTimeoutError, ask, "the server did not answer in time"))
        case "connection":
            raise TransientError(_error(StoreError, ask, "the server cannot be reached, or the connection broke"))
        case "sign-in":
            message = "no credentials could be got from where they should come from"
            raise _error(CredentialsError, ask, message, fault.status, "sign in again, or pass credentials")
        case "region":
            message = "the server sends the request to another region and does not say which"
            raise _error(StoreError, ask, message, hint="pass region")
        case "tls":
            hint = "SSL_CERT_FILE may name the certificates to trust"
            raise _error(StoreError, ask, "the certificate of the server is not valid", hint=hint)
        case "outside":
            raise _error(ObjectChangedError, ask, "the range lies outside the object")
        case "no length":
            raise _error(StoreError, ask, "the server does not say how long the object is", hint="use its http(s) URL")
        case "whole" | "no suffix" | "wrong range":
            message = "the server does not answer ranges with ranges"
            hint = "a server with range requests, or a copy of the data, is needed"
            raise _error(RangeNotHonouredError, ask, message, hint=hint)
        case "panic":
            raise _error(StoreError, ask, f"obstore failed inside: {fault.text}", hint="please report this")
        case _:
            raise _error(StoreError, ask, f"obstore says: {fault.text}")


def _error(kind: type[_Error], ask: Ask, message: str, status: int | None = None, hint: str | None = None) -> _Error:
    return kind(message, key=ask.key, byte_range=verify.byte_range(ask), status=status, hint=hint)
