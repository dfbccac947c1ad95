"""Children that end with us, even by kill -9: pip and uv, which would go on writing where nobody looks any more.

The child binds itself and then becomes the program: code of ours between fork and exec may hang in a process with
threads (the progress bar has one). Source: PR_SET_PDEATHSIG in prctl(2), which execve keeps.
"""

from __future__ import annotations

import os
import sys

_BIND = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit("its parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


def argv(*command: str) -> list[str]:
    """The argv that runs ``command`` bound to the calling thread; its first word is a path."""
    return [sys.executable, "-I", "-c", _BIND, str(os.getpid()), *command]
