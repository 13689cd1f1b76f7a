"""Attributes of files: owner, group, permissions, access lists, other extended attributes."""

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Any

_NOT_OURS = "security."
"""Attributes that the system sets by its own policy."""
_NONE_HERE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class FileAttributes:
    """Attributes of a file. POSIX and NFSv4 access lists are extended attributes on Linux (acl(5), xattr(7))."""

    mode: int
    owner: int
    group: int
    attributes: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, descriptor: int) -> "FileAttributes":
        """Return the attributes of an open file."""
        status = os.fstat(descriptor)
        mode = status.st_mode & 0o777  # no setuid: the copy belongs to us
        return cls(mode, status.st_uid, status.st_gid, tuple(_attributes(descriptor)))

    def give_to(self, target: Any) -> None:
        """Set these attributes on another open file (on Windows a path); owner and group as far as permitted.

        Raises
        ------
        OSError
            if an attribute (an access list, say) cannot be set: others could read the file.

        """
        if hasattr(os, "chown"):
            for owner, group in ((-1, self.group), (self.owner, -1)):
                with contextlib.suppress(OSError):  # only root gives files away
                    os.chown(target, owner, group)
        os.chmod(target, self.mode)  # noqa: PTH101 - it may be a descriptor
        for name, value in self.attributes:
            try:
                os.setxattr(target, name, value)
            except OSError as error:
                reason = f"cannot keep the extended attribute {name}: {error.strerror}"
                raise OSError(error.errno, reason) from error


def _attributes(descriptor: int) -> list[tuple[str, bytes]]:
    if not hasattr(os, "listxattr"):
        return []
    try:
        names = [name for name in os.listxattr(descriptor) if not name.startswith(_NOT_OURS)]
        return [(name, os.getxattr(descriptor, name)) for name in names]
    except OSError as error:
        if error.errno in _NONE_HERE:
            return []
        raise
