"""The part of the XML API of GCS that reading needs, with its decompression of objects on the way."""

from __future__ import annotations

import gzip
from email.utils import formatdate

from tests.servers.cloud import EPOCH_S, CloudServer, children, error, part, stored_headers

DATE = "2023-11-14T22:13:20.000Z"


class GcsServer(CloudServer):
    """`token`: the bearer token that is accepted, None for a public bucket. `lists`: whether missing keys are 404."""

    def __init__(self, objects=None, *, token=None, lists=True):
        super().__init__(objects)
        self.token = token
        self.lists = lists

    def answer(self, request):
        sent = request.headers.get("authorization")
        # A service account signs tokens of its own, which are let in unread.
        if sent is not None and sent != f"Bearer {self.token}" and not sent.startswith("Bearer eyJ"):
            return error(401, "AuthenticationRequired")
        signed = "X-Goog-Signature" in request.query
        if self.token is not None and sent is None and not signed:
            return error(403, "AccessDenied")
        bucket, _, key = request.path.lstrip("/").partition("/")
        if not any(name.startswith(f"{bucket}/") for name in self.objects):
            return error(404, "NoSuchBucket")
        if not key:
            return self._listing(bucket, request.query.get("prefix", ""))
        stored = self.objects.get(f"{bucket}/{key}")
        if stored is None:
            return error(404, "NoSuchKey") if self.lists else error(403, "AccessDenied")
        accepted = request.headers.get("accept-encoding", "")
        if stored.encoding != "gzip" or stored.no_transform or "gzip" in accepted:
            return part(request, stored)
        if request.headers.get("if-match", stored.etag) != stored.etag:
            return error(412, "PreconditionFailed")
        # Decompressed on the way: whatever range is asked for, the whole object comes, and no length.
        headers = {**stored_headers(stored), "x-goog-stored-content-encoding": "gzip", "warning": "214 gunzipped"}
        del headers["content-encoding"]
        body = gzip.decompress(stored.body)
        return 200, headers, (body[:1000], body[1000:]) if len(body) > 1000 else (body,)

    def _listing(self, bucket, prefix):
        if not self.lists:
            return error(403, "AccessDenied")
        files, folders = children(self.objects, bucket, prefix)
        items = "".join(
            f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag><LastModified>{DATE}</LastModified></Contents>"
            for key in files
        )
        items += "".join(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in folders)
        document = f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
        headers = {"content-type": "application/xml", "date": formatdate(EPOCH_S, usegmt=True)}
        return 200, headers, document.encode()
