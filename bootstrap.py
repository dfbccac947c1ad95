"""Makes .venv and installs hash-pinned requirements into it: `python3 bootstrap.py core` or `dev`.

Standard library only, and syntax that old Pythons can read: its first duty is to say clearly what is missing.
Done in a few milliseconds when nothing has changed.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
MINIMUM = (3, 11)
LEAST_FREE_BYTES = 20 * 1000 * 1000


def main():
    kind = sys.argv[1]
    require_python()
    requirements = os.path.join(ROOT, "requirements", kind + ".txt")
    try:
        with open(requirements, "rb") as lock:
            # Two makes at once would write into one environment: the second waits for the first.
            fcntl.flock(lock, fcntl.LOCK_EX)
            install(kind, requirements, wanted=stamp(lock.read()))
    except KeyboardInterrupt:
        fail("interrupted", "run the same make again: what is installed is kept", code=130)
    except OSError as error:
        fail("cannot write {}: {}".format(error.filename or VENV, error.strerror), "df -h {0}; ls -ld {0}".format(ROOT))


def require_python():
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MINIMUM:
        fail(
            "Python {} is too old: ownweights needs at least {}.{}".format(found, *MINIMUM),
            "make PYTHON=python3.12 deploy   # any Python from 3.11 on that is installed",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        fail(
            "Python {} ({}) has no venv module".format(found, sys.executable),
            "apt-get install python{}.{}-venv   # Debian and Ubuntu".format(*sys.version_info[:2]),
        )


def stamp(requirements):
    """What the environment was made from: another requirement set, project file or Python means install again."""
    digest = hashlib.sha256(requirements)
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as project:
        digest.update(project.read())
    digest.update("{} {}".format(sys.version, sys.prefix).encode())
    return digest.hexdigest()


def install(kind, requirements, wanted):
    mark = os.path.join(VENV, "ownweights-" + kind)
    if os.path.exists(mark):
        with open(mark) as done:
            if done.read() == wanted:
                return
    python = os.path.join(VENV, "bin", "python")
    if not usable(python):
        say("making .venv with Python " + sys.version.split()[0])
        call([sys.executable, "-m", "venv", "--clear", VENV])
    say("installing requirements/{}.txt (hash-pinned)".format(kind))
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    call([*pip, "--require-hashes", "-r", requirements])
    call([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT])
    with open(mark, "w") as done:
        done.write(wanted)


def usable(python):
    """A .venv whose making was cut short, or whose Python is gone or another one, is made anew."""
    check = "import pip, sys; sys.exit(sys.version_info[:2] != {})".format(tuple(sys.version_info[:2]))
    try:
        return subprocess.run([python, "-c", check], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def call(command):
    """Runs it as a group of its own that ends with us; its last words become our error."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    release = guard(child.pid)
    words = child.communicate()[1].decode(errors="replace").strip()
    release()
    if child.returncode != 0:
        raise SystemExit(explain(words))


def guard(group):
    """Kills the group when we are gone, however we go: a pip left alone would write into the next run's work.

    A process of its own waits for our end of a pipe to close. Returns what calls it off.
    """
    ours, its = socket.socketpair()
    if os.fork() == 0:
        os.setsid()
        ours.close()
        if not its.recv(1):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        os._exit(0)
    its.close()
    return lambda: ours.send(b"!")


def explain(words):
    lines = [line for line in words.splitlines() if line.strip()] or ["no message"]
    # Some steps swallow the reason: a full disk is told by looking.
    if "No space left" in words or shutil.disk_usage(ROOT).free < LEAST_FREE_BYTES:
        return fail("no disk space for .venv", "df -h " + ROOT)
    if any(sign in words for sign in ("Connection", "connect", "resolve", "timed out", "No matching distribution")):
        return fail(
            "the package index cannot be reached", "pip config list   # which index? then run make again", lines
        )
    if "HASHES" in words:
        return fail(
            "a package is not the pinned one: its hash differs", "pip config list   # an index that rebuilds?", lines
        )
    return fail("the installation failed", "the lines above say where", lines)


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(message, hint, lines=(), code=1):
    for line in lines[-5:]:
        say("  " + line)
    say("error: " + message)
    say("hint: " + hint)
    sys.exit(code)


if __name__ == "__main__":
    main()
