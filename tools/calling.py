"""Call a command, and say in one line what the user's files or machine kept it from."""

import errno
import importlib
import sys
from collections.abc import Callable
from typing import Any

Call = tuple[str, str, dict[str, Any]]  # module, function, arguments


def call(noted: Call) -> int:
    """Do what was noted; the exit code. Other errors than a user's are the tool's own: raised."""
    from guard.errors import UnusableInput

    module, function, arguments = noted
    try:
        work: Callable[..., int] = getattr(importlib.import_module(module), function)
        return work(**arguments)
    except UnusableInput as error:
        print(f"drmguard: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        return _missing_library(error)
    except OSError as error:
        return _out_of_reach(error)


OUT_OF_REACH = (
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOSPC, errno.EROFS, errno.EDQUOT),
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP),
)


def _out_of_reach(error: OSError) -> int:
    """A file or folder that the user may not read or write, or that can't be."""
    if error.errno not in OUT_OF_REACH:
        raise error
    where = error.filename or "the output"
    print(f"drmguard: {where}: can't be read or written ({error.strerror})", file=sys.stderr)
    return 2


def _missing_library(error: ImportError) -> int:
    if ".so" not in str(error):
        raise error
    print(
        f"drmguard: a system library is missing ({error}); on Debian or Ubuntu: "
        "apt-get install libgl1 libglib2.0-0 libxcb1",
        file=sys.stderr,
    )
    return 2
