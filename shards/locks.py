"""The kernel's locks on open files (`flock`), which NFS passes on to its server: a killed process holds nothing."""

import errno
import fcntl
from typing import IO, Any, Final, Literal

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What file systems without such locks answer: Lustre mounted without `flock`, some FUSE ones."""

Taken = Literal["held", "busy", "no locks here"]


def take(stream: IO[Any], shared: bool = False, wait: bool = False) -> Taken:
    """Lock an open file until it is closed.

    Args:
        stream: of the file.
        shared: beside others who share it.
        wait: for whoever holds it.

    Returns:
        `busy` where somebody else holds it, `no locks here` where the file system has none.

    Raises:
        OSError: the file system fails.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return "busy"
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return "no locks here"
        raise
    return "held"
