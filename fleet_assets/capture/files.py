"""Files of a recording, opened without trust: names may lie, folders may hold links, pipes and devices.

In: a folder and relative names. Out: regular files below the folder, their sizes and hashes. No link is followed on the way,
also when one is put there meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fleet_assets.errors import FleetError

MAX_NAME = 1024
BLOCK_BYTES = 4 * 1024 * 1024
Progress = Callable[[int, int], None]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = (
    (stat.S_ISLNK, "link"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISCHR, "device"),
)
# Two file systems, or one that does not know how.
_CANNOT_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})
# Control, format (they turn text around), surrogates, line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class ManifestError(FleetError):
    """A manifest that cannot be trusted, or files that are not what it says."""


def check_name(name: str) -> str:
    """A relative POSIX path without tricks. Raises ManifestError."""
    bad = (
        not name
        or len(name) > MAX_NAME
        or "\\" in name
        or any(unicodedata.category(character) in _UNPRINTABLE for character in name)
        or any(part in ("", ".", "..") for part in name.split("/"))
    )
    if bad:
        raise ManifestError(
            f"File name {name[:80]!a} is not allowed",
            remedy="Names are relative, in UTF-8, with /, and without `..` and control characters.",
        )
    return name


def size_of(folder: Path, name: str) -> int:
    """Bytes of the regular file of that name below the folder. Raises ManifestError."""
    with _holder(folder, name) as (directory, last):
        return _regular(os.stat(last, dir_fd=directory, follow_symlinks=False), name).st_size


@contextmanager
def open_regular(folder: Path, name: str) -> Iterator[BinaryIO]:
    """The regular file of that name below the folder, to be read. Raises ManifestError."""
    with _holder(folder, name) as (directory, last):
        # Looked at before it is opened: opening a device can do something.
        _regular(os.stat(last, dir_fd=directory, follow_symlinks=False), name)
        opened = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with open(opened, "rb") as file:
        _regular(os.fstat(opened), name)
        yield file


def hash_file(
    folder: Path, name: str, progress: Callable[[int], None] = lambda done: None, *, limit: int | None = None
) -> tuple[str, int]:
    """sha256 and size, in bounded memory. limit: stop a block after so many bytes (a file that grows must not hold us)."""
    with open_regular(folder, name) as file:
        return hash_stream(file, progress, limit=limit)


def hash_stream(
    source: BinaryIO, progress: Callable[[int], None] = lambda done: None, *, limit: int | None = None
) -> tuple[str, int]:
    """sha256 and size of what is read from the source."""
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK_BYTES))
    while count := source.readinto(buffer):  # type: ignore[attr-defined]
        digest.update(buffer[:count])
        size += count
        progress(size)
        if limit is not None and size > limit:
            break
    return digest.hexdigest(), size


def copy_hashed(
    source: BinaryIO, copy: BinaryIO, progress: Callable[[int], None] = lambda done: None
) -> tuple[str, int]:
    """Copies a file; gives sha256 and size of the copy, each block of it read back from memory while it is there.

    source: from where it stands. copy: new, to be written and read, without a buffer. The system copies, or shares blocks where
    the disk's format can, which is less work than to write them from here. Raises OSError.
    """
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(BLOCK_BYTES))
    in_system = True
    while True:
        count = (_copy_in_system if in_system else _copy_here)(source, copy, buffer)
        if count == 0 and not in_system:
            return digest.hexdigest(), size
        if count == 0:
            in_system = False  # the end, or a disk that the system cannot copy from: reading tells
            continue
        if (got := os.preadv(copy.fileno(), [buffer[:count]], size)) != count:
            raise OSError(errno.EIO, f"only {got} of {count} bytes are there after writing them")
        digest.update(buffer[:count])
        size += count
        progress(size)


def _copy_in_system(source: BinaryIO, copy: BinaryIO, buffer: memoryview) -> int:
    """Bytes copied, at most the buffer's length; 0 at the end, and where the system cannot."""
    try:
        return os.copy_file_range(source.fileno(), copy.fileno(), len(buffer))
    except OSError as error:
        if error.errno in _CANNOT_COPY:
            return 0
        raise


def _copy_here(source: BinaryIO, copy: BinaryIO, buffer: memoryview) -> int:
    count = os.readv(source.fileno(), [buffer])
    written = 0
    while written < count:
        written += os.write(copy.fileno(), buffer[written:count])
    return count


@contextmanager
def _holder(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """The directory that holds the file, opened part by part, and the file's last name. Raises ManifestError, also for
    what the caller meets there."""
    *parts, last = PurePosixPath(name).parts
    opened: list[int] = []
    try:
        opened.append(os.open(folder, _DIRECTORY))
        for part in parts:
            opened.append(os.open(part, _DIRECTORY, dir_fd=opened[-1]))
        yield opened[-1], last
    except FileNotFoundError as error:
        raise ManifestError(f"{name} is missing", where=folder.name, remedy="Deliver the recording again.") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ManifestError(
                f"{name} is, or lies behind, a link or no folder",
                where=folder.name,
                remedy="Deliver the files themselves.",
            ) from error
        raise ManifestError(
            f"{name[:80]} cannot be read: {error.strerror}",
            where=folder.name,
            remedy="Look at its name and its rights.",
        ) from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _regular(found: os.stat_result, name: str) -> os.stat_result:
    if stat.S_ISREG(found.st_mode):
        return found
    kind = next((word for test, word in _KINDS if test(found.st_mode)), "special file")
    raise ManifestError(f"{name} is a {kind}, no regular file", remedy="Deliver regular files only.")
