"""Making a version again from the bytes that it was made of, out of the store or out of a file that left it.

What a bundle holds is all that a version depends on, so it gives the same bytes on any machine, with no database.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from mdtasks.domain.errors import ConflictError, InvalidRequestError
from mdtasks.domain.listings import Day, candidates
from mdtasks.domain.universe import RULES, Member, assigned
from mdtasks.domain.versions import Header, keys_of, members_bytes, members_of, sha256, traded_of
from mdtasks.providers.listings import format_of, read
from mdtasks.store import listings
from mdtasks.store import universe as store
from mdtasks.store.universe import Version

_NAMES: Final = ("version.json", "header.json", "members.csv", "parent.csv")
#: A file may unpack to this much at most.
_MOST_BYTES: Final = 4 << 30


@dataclass(frozen=True, slots=True)
class Bundle:
    """A version with what it is made of. ``blobs``: the inputs by SHA-256; ``parent``: the members of the version that
    held, b"" where none did.
    """

    tag: str
    header: str
    members: bytes
    parent: bytes
    blobs: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of making a version again. ``same``: byte for byte what is kept."""

    tag: str
    hash: str
    members: int
    members_sha256: str
    same: bool

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def built(header: Header, blobs: Mapping[str, bytes], parent: bytes) -> list[Member]:
    """The members that a header's inputs make."""
    days = [Day(each.as_of, read(header.source, blobs[each.sha256])) for each in header.listings]
    traded = {} if header.traded is None else traded_of(blobs[header.traded.sha256])
    keys = keys_of(blobs[header.keys.sha256])
    found = candidates(days, keys, traded, partial=format_of(header.source).partial)
    before = None if header.parent is None else {one.instrument: one.tier for one in members_of(parent)}
    return assigned(found, header.terms, before)


def bundle_of(connection: Connection, version: Version) -> Bundle:
    """A version out of the store, with its inputs. Raises NotFoundError when one of them is gone or was changed."""
    header = Header.of(version.header)
    blobs = {each.sha256: listings.body_of(connection, each) for each in header.inputs}
    parent = b""
    if version.parent is not None:
        held = store.one(connection, version.parent)
        parent = members_bytes(store.members(connection, held.version))
    members = members_bytes(store.members(connection, version.version))
    return Bundle(version.version_tag, version.header, members, parent, blobs)


def checked(bundle: Bundle) -> Checked:
    """Make a version again and compare. Raises ConflictError where it cannot be compared: other rules made it, or an
    input is not the one that its header names.
    """
    header = Header.of(bundle.header)
    if header.rules != RULES:
        raise ConflictError(
            f"{bundle.tag} was made by rules {header.rules}, this mdtasks has rules {RULES}",
            hint="use the mdtasks that made it",
        )
    for each in header.inputs:
        body = bundle.blobs.get(each.sha256)
        if body is None or sha256(body) != each.sha256:
            raise ConflictError(
                f"{bundle.tag}: the {each.source} listing of {each.as_of} is missing or not what it was",
                hint="export the version again from a store that has it",
            )
    if header.parent is not None and sha256(bundle.parent) != header.parent[1]:
        raise ConflictError(
            f"{bundle.tag}: the members of the version before it are not what they were",
            hint="`mdtasks universe recompute` of that version says more",
        )
    again = built(header, bundle.blobs, bundle.parent)
    lines = members_bytes(again)
    same = lines == bundle.members and header.text() == bundle.header
    return Checked(bundle.tag, header.hash, len(again), sha256(lines), same)


def packed(bundle: Bundle) -> bytes:
    """The bundle as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        contents = [
            json.dumps({"version_tag": bundle.tag}).encode(),
            bundle.header.encode(),
            bundle.members,
            bundle.parent,
        ]
        for name, data in zip(_NAMES, contents, strict=True):
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        for name, data in sorted(bundle.blobs.items()):
            archive.writestr(zipfile.ZipInfo(f"inputs/{name}"), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unpacked(path: Path) -> Bundle:
    """A bundle that ``universe export`` wrote. Raises InvalidRequestError when it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(each.file_size for each in archive.infolist()) > _MOST_BYTES:
                raise _no_bundle(path, "it holds too much")
            told, header, members, parent = (archive.read(name) for name in _NAMES)
            names = [name for name in archive.namelist() if name.startswith("inputs/")]
            blobs = {name.removeprefix("inputs/"): archive.read(name) for name in names}
        return Bundle(json.loads(told)["version_tag"], header.decode("ascii"), members, parent, blobs)
    except OSError as exc:
        raise _no_bundle(path, exc.strerror or str(exc)) from exc
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as exc:
        raise _no_bundle(path, str(exc)) from exc


def _no_bundle(path: Path, why: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is no exported version: {why}",
        field="file",
        hint="`mdtasks universe export TAG --output FILE` makes one",
    )
