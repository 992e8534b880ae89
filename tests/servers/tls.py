"""A certificate for tests, of 127.0.0.1, which nobody trusts by himself."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import ipaddress
import os
import shutil
import ssl
import tempfile
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@functools.cache
def certificate():
    """(context of a server that has the certificate, file for clients that trust it)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "voxfetch tests")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = made.public_bytes(encoding)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = Path(tempfile.mkdtemp(prefix="voxfetch-tls"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "server.pem"
    path.write_bytes(private + public)
    server_side.load_cert_chain(path)
    path.write_bytes(public)
    return server_side, path


def trusting(trusted):
    """TLS connections that begin now trust a certificate of ours alone."""
    return mock.patch.dict(os.environ, SSL_CERT_FILE=str(trusted))
