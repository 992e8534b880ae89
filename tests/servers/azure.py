"""The part of the blob service of Azure that reading needs: no suffix ranges, and what is private seems missing."""

from __future__ import annotations

from email.utils import formatdate

from tests.servers.cloud import EPOCH_S, CloudServer, children, error, part

DATE = formatdate(EPOCH_S, usegmt=True)


class AzureServer(CloudServer):
    """Serves the account `account` under its root. Signed requests are let in by the signature `sig`, or by any key.

    `public`: whether unsigned requests are let in.
    """

    def __init__(self, objects=None, *, public=False, sig="c2ln"):
        super().__init__(objects)
        self.public = public
        self.sig = sig

    def answer(self, request):
        signature = request.query.get("sig")
        if signature is not None and signature != self.sig:
            return error(403, "AuthenticationFailed")
        signed = signature is not None or request.headers.get("authorization", "").startswith("SharedKey ")
        if not signed and not self.public:
            return error(404, "ResourceNotFound")
        container, _, key = request.path.lstrip("/").partition("/")
        if request.query.get("comp") == "list":
            return self._listing(container, request.query.get("prefix", ""))
        stored = self.objects.get(f"{container}/{key}")
        if stored is None:
            return error(404, "BlobNotFound")
        return part(request, stored, suffixes=False)

    def _listing(self, container, prefix):
        files, folders = children(self.objects, container, prefix)
        properties = (
            f"<Properties><Last-Modified>{DATE}</Last-Modified><Etag>e</Etag><Content-Length>1</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type></Properties>"
        )
        blobs = "".join(f"<Blob><Name>{key}</Name>{properties}</Blob>" for key in files)
        blobs += "".join(f"<BlobPrefix><Name>{folder}</Name></BlobPrefix>" for folder in folders)
        document = f'<EnumerationResults ContainerName="{container}"><Blobs>{blobs}</Blobs></EnumerationResults>'
        return 200, {"content-type": "application/xml"}, document.encode()
