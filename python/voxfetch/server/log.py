"""What the server's log says: of a failure all but secrets. Clients get the number under which it stands there."""

from __future__ import annotations

import logging
import re
import secrets
import traceback

__all__ = ["ACCESS", "LOG", "logged", "redacted"]

LOG = logging.getLogger("voxfetch.server")
ACCESS = logging.getLogger("voxfetch.server.access")

# A URL: user and password before the host, and a query, which may be a signature. It ends at a blank or a quote.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#|\s]*@)?([^?#|\s'\"]*)(?:[?#][^|\s'\"]*)?")
_TOKEN = re.compile(r"/t/[A-Za-z0-9_-]{16,128}")


def redacted(text: str) -> str:
    """Returns a text with the secrets of URLs and tokens left out, on one line."""
    text = _TOKEN.sub("/t/...", _URL.sub(r"\1\2", text))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def logged(request: str, error: BaseException, *, bug: bool) -> str:
    """Logs a failure of a request (method and path) and returns its number. Of a bug the log has the traceback."""
    number = secrets.token_hex(6)
    text = f"{type(error).__name__}: {error}"
    if bug:
        text = "".join(traceback.format_exception(error))
        LOG.error("%s id=%s\n%s", redacted(request), number, "\n".join(map(redacted, text.splitlines())))
    else:
        LOG.warning("%s id=%s %s", redacted(request), number, redacted(text))
    return number
