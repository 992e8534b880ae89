"""Makes ZIP archives: of folders, as tools write them, and by hand, as nobody should."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import zipfile
import zlib
from dataclasses import dataclass, field

import voxfetch as vf
from tests.conftest import Case

FAST = vf.RetryPolicy(max_attempts=3, base_s=0.01, cap_s=0.05, idle_timeout_s=2)
SHARDS = {"chunks": (32, 32, 32), "shards": (64, 64, 64), "compressors": None}
"""Raw chunks in shards of 1 MiB each, if of 4 bytes a voxel: too large to be fetched whole on suspicion."""


class Pipe(io.RawIOBase):
    """A file that cannot be sought in, as a pipe: what is written to it has sizes behind its data."""

    def __init__(self, file):
        self._file = file

    def writable(self):
        return True

    def write(self, data):
        return self._file.write(data)


def pack(
    folder, method=zipfile.ZIP_STORED, *, comment=b"", before=b"", streamed=False, zip64=False, only=lambda name: True
):
    """Bytes of an archive of a folder, its documents first."""
    file = io.BytesIO()
    file.write(before)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(Pipe(file) if streamed else file, "w", method) as archive:
        for name in sorted(names, key=lambda name: not name.endswith(".json")):
            if only(name):
                with archive.open(name, "w", force_zip64=zip64) as member:
                    member.write((folder / name).read_bytes())
        archive.comment = comment
    return file.getvalue()


def packed(case, path, **how):
    """The archive of an array's folder, as a Case."""
    path.write_bytes(pack(case.path, **how))
    return Case(path, case.expected)


def info_zip(folder, *options):
    """Bytes of an archive by Info-ZIP, whose extra fields in headers and directory have different lengths."""
    path = folder.parent / f"{folder.name}.info.zip"
    path.unlink(missing_ok=True)
    subprocess.run(["zip", "-q", "-r", *options, str(path), "."], cwd=folder, check=True)
    return path.read_bytes()


def info_zip_streamed(folder, *options):
    """The same, written to a pipe."""
    return subprocess.run(["zip", "-q", "-r", *options, "-", "."], cwd=folder, capture_output=True, check=True).stdout


PACKERS = {
    "stored": pack,
    "deflated": lambda folder: pack(folder, zipfile.ZIP_DEFLATED),
    "ZIP64": lambda folder: pack(folder, zip64=True),
    "a long comment": lambda folder: pack(folder, comment=b"PK\5\6" * 16383 + b"\0\0\0"),
    "streamed": lambda folder: pack(folder, streamed=True),
    "streamed and deflated": lambda folder: pack(folder, zipfile.ZIP_DEFLATED, streamed=True),
    "streamed ZIP64": lambda folder: pack(folder, streamed=True, zip64=True),
}
"""How folders become archives."""
if shutil.which("zip"):
    PACKERS |= {
        "Info-ZIP": info_zip,
        "Info-ZIP, stored": lambda folder: info_zip(folder, "-0"),
        "Info-ZIP, ZIP64": lambda folder: info_zip(folder, "-0", "-fz"),
        "Info-ZIP, streamed": info_zip_streamed,
        "Info-ZIP, streamed and stored": lambda folder: info_zip_streamed(folder, "-0"),
    }


@dataclass
class Made:
    """A member as it is written; `local` and `central` replace fields of its header and of its entry.

    `behind` lies between its data and the next member; `extra` and `central_extra` are the extra fields.
    """

    name: bytes
    data: bytes
    method: int = 0
    encoded: bytes | None = None
    flags: int = 0
    extra: bytes = b""
    central_extra: bytes = b""
    behind: bytes = b""
    local: dict = field(default_factory=dict)
    central: dict = field(default_factory=dict)

    def header(self, fields):
        fields = fields | self.local
        values = [fields[one] for one in ("flags", "method", "crc", "stored", "nbytes", "name_nbytes", "extra_nbytes")]
        flags, method, *rest = values
        start = struct.pack("<4s5H3I2H", fields["sign"], 20, flags, method, 0, 0, *rest)
        return start + fields["name"] + self.extra

    def entry(self, fields, offset):
        fields = fields | {"offset": offset, "sign": b"PK\1\2", "extra_nbytes": len(self.central_extra), "disk": 0}
        fields |= self.central
        names = ("crc", "stored", "nbytes", "name_nbytes", "extra_nbytes")
        start = struct.pack(
            "<4s6H3I2H", fields["sign"], 20, 20, fields["flags"], fields["method"], 0, 0, *map(fields.get, names)
        )
        return (
            start
            + struct.pack("<3H2I", 0, fields["disk"], 0, 0, fields["offset"])
            + fields["name"]
            + self.central_extra
        )

    def fields(self):
        encoded = self.data if self.encoded is None else self.encoded
        return encoded, {
            "sign": b"PK\3\4",
            "flags": self.flags,
            "method": self.method,
            "crc": zlib.crc32(self.data),
            "stored": len(encoded),
            "nbytes": len(self.data),
            "name_nbytes": len(self.name),
            "extra_nbytes": len(self.extra),
            "name": self.name,
        }


def deflated(name, data, **other):
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return Made(name, data, 8, compressor.compress(data) + compressor.flush(), **other)


def archive(*members, comment=b"", zip64=False, end=None, end64=None, order=None):
    """Bytes of an archive; `end` and `end64` replace fields of its ends, `order` is that of the entries."""
    parts, entries, at = [], [], 0
    for member in members:
        encoded, fields = member.fields()
        entries.append(member.entry(fields, at))
        part = member.header(fields) + encoded + member.behind
        parts.append(part)
        at += len(part)
    entries = [entries[index] for index in order or range(len(entries))]
    directory = b"".join(entries)
    fields = {
        "disk": 0,
        "first": 0,
        "here": len(entries),
        "members": len(entries),
        "nbytes": len(directory),
        "start": at,
    }
    last = b""
    if zip64:
        wide = fields | {"size": 44, "sign": b"PK\6\6", "place": at + len(directory), "disks": 1} | (end64 or {})
        names = ("disk", "first", "here", "members", "nbytes", "start")
        last = struct.pack("<4sQ2H2I4Q", wide["sign"], wide["size"], 45, 45, *map(wide.get, names))
        last += struct.pack("<4sIQI", b"PK\6\7", 0, wide["place"], wide["disks"])
        fields |= {"here": 0xFFFF, "members": 0xFFFF, "nbytes": 0xFFFFFFFF, "start": 0xFFFFFFFF}
    fields |= end or {}
    names = ("disk", "first", "here", "members", "nbytes", "start")
    last += struct.pack("<4s4H2IH", b"PK\5\6", *map(fields.get, names), len(comment))
    return b"".join(parts) + directory + last + comment


def group():
    """The document of a group."""
    return json.dumps({"zarr_format": 3, "node_type": "group"}).encode()
