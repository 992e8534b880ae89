"""The structures of a ZIP archive: bytes go in, where its members lie comes out. Knows no store.

The central directory is what counts; the header before each member says where its data begins, and has to agree with
it. Names are keys and nothing else: one that is no canonical key (`..`, absolute, with a backslash) is never asked
for. Source: PKWARE APPNOTE 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (its
end), 4.4.4 (flags), 4.4.5 (methods), 4.5.3 (ZIP64).
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from voxfetch.errors import ChecksumError, DataError, LimitExceededError, UnsupportedError, VoxfetchError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "HEADER_NBYTES",
    "MAX_DIRECTORY_NBYTES",
    "STARTS",
    "STORED",
    "TAIL_NBYTES",
    "Directory",
    "End",
    "Member",
    "check_crc",
    "check_readable",
    "data_start",
    "find_end",
    "inflate",
]

TAIL_NBYTES = 128 << 10
"""Bytes at the end of an archive that hold the end of its directory, behind which there may be 64 KiB of comment."""
MAX_DIRECTORY_NBYTES = 256 << 20
"""Bytes of the largest central directory that is read: some three million members."""
STARTS = (b"PK\3\4", b"PK\5\6")
"""What an archive begins with: a member, or nothing but an empty directory."""
STORED = 0
HEADER_NBYTES = 30
"""Bytes of a local header, without the name and the extra field that follow."""

_DEFLATED = 8
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 20: "zstd", 93: "zstd", 95: "xz", 98: "PPMd"}

_END = Struct("<4s4H2IH")
_LOCATOR64 = Struct("<4sIQI")
_END64 = Struct("<4sQ2H2I4Q")
# Versions, times and attributes are left out.
_ENTRY = Struct("<4s4x2H4x3I4H6xI")
_HEADER = Struct("<4s2x2H4x3I2H")
_FIELD = Struct("<2H")
_WIDE = Struct("<Q")

_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_FIELD = 1
# Encrypted (bits 0, 6 and 13) or a patch of another file (5).
_REFUSED_FLAGS = 0x2061
# Sizes and checksum stand behind the data, not in the local header.
_STREAMED = 1 << 3
# Those that stand behind the data, at most: a signature, a CRC-32, two sizes of ZIP64.
_DESCRIPTOR_NBYTES = 24

_REPAIR = "is the archive complete? `zip -FF` may repair it"
_REPACK = "pack it again without compression: zip -0, or 7z a -mx0"


class End(NamedTuple):
    """Where the central directory is: bytes `[start, end)` of the archive, with `members` entries."""

    start: int
    end: int
    members: int


class Member(NamedTuple):
    """What the directory says of a member.

    Its local header is at `offset`, the next one, or the directory, at `after`; between them are the header, `stored`
    bytes of data, and perhaps more. Decoded it has `nbytes` bytes with the checksum `crc`. `row` numbers it.
    """

    row: int
    name: str
    name_nbytes: int
    offset: int
    after: int
    stored: int
    nbytes: int
    crc: int
    method: int
    flags: int

    @property
    def header_nbytes(self) -> tuple[int, int]:
        """Least and most bytes that the local header probably has; the extra field may be another one than here."""
        least, room = HEADER_NBYTES + self.name_nbytes, self.after - self.offset - self.stored
        if room > least + _FULL16 + _DESCRIPTOR_NBYTES:
            # Something else lies behind the member.
            return least, least
        return (max(room - _DESCRIPTOR_NBYTES, least) if self.flags & _STREAMED else room), room


def find_end(tail: bytes, total: int) -> End:
    """Returns where the directory is; `tail` are the last bytes of an archive of `total`: `TAIL_NBYTES`, or all.

    Raises `DataError` for what is no archive or a part of one, `UnsupportedError`, `LimitExceededError`.
    """
    failure: VoxfetchError | None = None
    at = len(tail)
    # A comment may hold what looks like an end: one that fits is taken, from behind.
    while (at := tail.rfind(b"PK\5\6", 0, at + 3)) >= 0:
        if at + _END.size > len(tail) or at + _END.size + _END.unpack_from(tail, at)[7] != len(tail):
            continue
        try:
            return _end_at(tail, at, total - len(tail))
        except VoxfetchError as error:
            failure = failure or error
    raise failure or DataError("no ZIP archive, or one that is cut off: it has no end of directory", hint=_REPAIR)


def _end_at(tail: bytes, at: int, base: int) -> End:
    """The end of directory at `tail[at:]`; the tail begins at byte `base` of the archive."""
    _, disk, first_disk, here, members, nbytes, start, _ = _END.unpack_from(tail, at)
    end = base + at
    disks = disk, first_disk
    if tail[max(at - _LOCATOR64.size, 0) : at].startswith(b"PK\6\7"):
        behind = at - _LOCATOR64.size
        _, disk, end, count = _LOCATOR64.unpack_from(tail, behind)
        place = end - base
        wrong = DataError("the ZIP64 end of directory is not where the archive says", hint=_REPAIR)
        if not 0 <= place <= behind - _END64.size:
            raise wrong
        sign, size, _, _, own, first, here64, members64, nbytes64, start64 = _END64.unpack_from(tail, place)
        if sign != b"PK\6\6" or place + 12 + size != behind:
            raise wrong
        narrow = ((here, here64, _FULL16), (members, members64, _FULL16), (nbytes, nbytes64, _FULL32))
        if any(value not in (wide, full) for value, wide, full in (*narrow, (start, start64, _FULL32))):
            raise DataError("the two ends of directory of the archive contradict each other", hint=_REPAIR)
        disks = disk, own, first, max(count - 1, 0)
        here, members, nbytes, start = here64, members64, nbytes64, start64
    if any(disks) or here != members:
        raise UnsupportedError("a part of an archive in several files", hint="put it together: zip -s 0 --out")
    if start + nbytes != end or members * _ENTRY.size > nbytes:
        raise DataError("the central directory is not where the archive says", hint=_REPAIR)
    if nbytes > MAX_DIRECTORY_NBYTES:
        message = f"a central directory of {nbytes:,} bytes; the limit is {MAX_DIRECTORY_NBYTES:,}"
        raise LimitExceededError(message, hint="use shards, or a folder: so many members are slow to find")
    return End(start, end, members)


class Directory:
    """The members of an archive, by name. `starts` has the place of the data of each row, 0 where it is not known yet.

    A name that stands twice means the later entry, if it also lies later in the archive: so it is left by writers that
    replace and cannot remove, such as zarr-python. Any other is refused.
    """

    __slots__ = (
        "_crcs",
        "_end",
        "_flags",
        "_methods",
        "_name_nbytes",
        "_nbytes",
        "_offsets",
        "_rows",
        "_sorted",
        "_stored",
        "starts",
    )

    def __init__(self, entries: bytes, end: End) -> None:
        """`entries` are the bytes of the central directory.

        Raises `DataError` where they are broken, or members overlap or reach out of the archive; `UnsupportedError`.
        """
        self._rows: dict[str, int] = {}
        self._offsets, self._stored, self._nbytes = array("Q"), array("Q"), array("Q")
        self._crcs, self._methods, self._flags, self._name_nbytes = array("I"), array("H"), array("H"), array("H")
        self._end = end.start
        in_order = self._parse(entries)
        count = len(self._offsets)
        # Without ZIP64 only the lower 16 bits are there.
        if (count - end.members) & _FULL16:
            message = f"the central directory has {count:,} entries, {end.members:,} are announced"
            raise DataError(message, hint=_REPAIR)
        self._sorted = self._offsets if in_order else self._checked_order()
        self.starts = array("Q", bytes(8 * count))

    def member(self, name: str) -> Member | None:
        """Returns the member of this name, None when there is none."""
        row = self._rows.get(name)
        if row is None:
            if name.replace("/", "\\") in self._rows and "/" in name:
                message = f"{name}: the archive has this member with backslashes in its name"
                raise UnsupportedError(message, hint="pack it again; names in archives have slashes (APPNOTE 4.4.17)")
            return None
        offset = self._offsets[row]
        at = bisect_right(self._sorted, offset)
        return Member(
            row,
            name,
            self._name_nbytes[row],
            offset,
            self._sorted[at] if at < len(self._sorted) else self._end,
            self._stored[row],
            self._nbytes[row],
            self._crcs[row],
            self._methods[row],
            self._flags[row],
        )

    def children(self, prefix: str) -> list[str]:
        """Returns the names directly under a prefix, sorted."""
        start = f"{prefix}/" if prefix else ""
        found = {name[len(start) :].partition("/")[0] for name in self._rows if name.startswith(start)}
        return sorted(name for name in found - {"", ".", ".."} if not {"\\", "\0"} & set(name))

    def _parse(self, entries: bytes) -> bool:
        """Reads all entries; returns whether each member lies behind the one before."""
        at, row, previous, in_order = 0, 0, 0, True
        while at < len(entries):
            if at + _ENTRY.size > len(entries):
                raise _broken(row)
            fields = _ENTRY.unpack_from(entries, at)
            sign, flags, method, crc, stored, nbytes, name_nbytes, extra_nbytes, rest, disk, offset = fields
            extra_at = at + _ENTRY.size + name_nbytes
            name = _decoded(entries[at + _ENTRY.size : extra_at])
            at = extra_at + extra_nbytes + rest
            if sign != b"PK\1\2" or at > len(entries):
                raise _broken(row)
            if _FULL32 in (stored, nbytes, offset):
                extra = entries[extra_at : extra_at + extra_nbytes]
                nbytes, stored, offset = _widened(extra, (nbytes, stored, offset), name)
            if disk not in (0, _FULL16):
                raise UnsupportedError(f"the member {name[:200]!r} is in another file", hint="put the archive together")
            end = offset + HEADER_NBYTES + name_nbytes + stored
            if end > self._end:
                raise DataError(f"the member {name[:200]!r} reaches out of the archive", hint=_REPAIR)
            in_order = in_order and offset >= previous
            previous = end
            if not name.endswith("/"):
                self._name(name, row, offset)
            self._offsets.append(offset)
            self._stored.append(stored)
            self._nbytes.append(nbytes)
            self._crcs.append(crc)
            self._methods.append(method)
            self._flags.append(flags)
            self._name_nbytes.append(name_nbytes)
            row += 1
        return in_order

    def _name(self, name: str, row: int, offset: int) -> None:
        before = self._rows.setdefault(name, row)
        if before == row:
            return
        if self._offsets[before] >= offset:
            message = f"the archive has two members {name[:200]!r}, and which is meant cannot be told"
            raise DataError(message, hint="pack it again")
        self._rows[name] = row

    def _checked_order(self) -> array[int]:
        """The offsets in order. Raises `DataError` where members overlap."""
        order = sorted(range(len(self._offsets)), key=self._offsets.__getitem__)
        for row, following in pairwise(order):
            end = self._offsets[row] + HEADER_NBYTES + self._name_nbytes[row] + self._stored[row]
            if end > self._offsets[following]:
                message = f"two members of the archive overlap, at byte {self._offsets[following]:,}"
                raise DataError(message, hint="it is broken, or made to do harm")
        return array("Q", map(self._offsets.__getitem__, order))


def check_readable(member: Member) -> None:
    """Raises `UnsupportedError` for a member that is encrypted or compressed in another way than by deflate."""
    where = f"the member {member.name!r} is"
    if member.flags & _REFUSED_FLAGS:
        raise UnsupportedError(f"{where} encrypted, or a patch", hint="pack it again without encryption")
    if member.method not in {STORED, _DEFLATED}:
        method = _METHODS.get(member.method, "another method")
        raise UnsupportedError(f"{where} compressed with {method} ({member.method})", hint=_REPACK)
    if member.method == STORED and member.stored != member.nbytes:
        raise DataError(f"{where} stored as it is, with two different sizes", hint=_REPAIR)


def data_start(header: Buffer, member: Member) -> int:
    """Returns the byte of the archive at which the data of a member begins.

    `header` is its local header and name, `HEADER_NBYTES + member.name_nbytes` bytes at least, perhaps followed by
    others. Raises `DataError` where it is not what the directory says.
    """
    view = memoryview(header)
    sign, flags, method, crc, stored, nbytes, name_nbytes, extra_nbytes = _HEADER.unpack_from(view)
    name = bytes(view[HEADER_NBYTES : HEADER_NBYTES + member.name_nbytes])
    says = (stored, member.stored), (nbytes, member.nbytes)
    agrees = flags & _STREAMED or (crc == member.crc and all(a in (b, _FULL32) for a, b in says))
    named = name_nbytes == member.name_nbytes and _decoded(name) == member.name
    start = member.offset + HEADER_NBYTES + name_nbytes + extra_nbytes
    if sign != b"PK\3\4" or method != member.method or not (agrees and named) or start + member.stored > member.after:
        message = f"the header of the member {member.name!r} is not what the directory of the archive says"
        raise DataError(message, byte_range=(member.offset, start), hint=_REPAIR)
    return start


def inflate(encoded: Buffer, member: Member) -> bytes:
    """Decodes the data of a member, never to more than `member.nbytes`. Raises `DataError`, `ChecksumError`."""
    decoder = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    decoded, whole = b"", False
    try:
        decoded = decoder.decompress(encoded, member.nbytes + 1)
        whole = decoder.eof and not decoder.unused_data and len(decoded) == member.nbytes
    except zlib.error:
        pass
    if not whole:
        message = f"the compressed member {member.name!r} does not decode to the {member.nbytes:,} bytes announced"
        raise DataError(message, hint=_REPAIR)
    check_crc(decoded, member)
    return decoded


def check_crc(decoded: Buffer, member: Member) -> None:
    """Raises `ChecksumError` for the whole of a member that has another CRC-32 than the archive says."""
    if zlib.crc32(decoded) != member.crc:
        raise ChecksumError(f"the CRC-32 of the member {member.name!r} differs", hint="the archive is damaged")


def _decoded(name: bytes) -> str:
    # UTF-8 is announced by a flag that some writers forget; without it the names are those of DOS.
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _widened(extra: bytes, values: tuple[int, int, int], name: str) -> list[int]:
    """Sizes and offset; those that are too large for their place stand in the extra field of ZIP64, in this order."""
    at = 0
    while at + _FIELD.size <= len(extra):
        kind, nbytes = _FIELD.unpack_from(extra, at)
        at += _FIELD.size
        if kind == _ZIP64_FIELD:
            field = extra[at : at + nbytes]
            wide = iter(_WIDE.iter_unpack(field[: len(field) // _WIDE.size * _WIDE.size]))
            found = [next(wide, (None,))[0] if value == _FULL32 else value for value in values]
            known = [value for value in found if value is not None]
            if len(known) == len(values):
                return known
            break
        at += nbytes
    raise DataError(f"the ZIP64 sizes of the member {name[:200]!r} are missing", hint=_REPAIR)


def _broken(row: int) -> DataError:
    return DataError(f"the central directory of the archive is broken at entry {row:,}", hint=_REPAIR)
