"""Starting a program so that it has no more rights than it needs and cannot outlive us.

PostgreSQL refuses to run as root, and a broker need not. As root we therefore start them as an unprivileged account.
Where their files lie below a directory only root may enter (a checkout in ``/root``), nobody's directory is opened up
for it: the program is given the one capability to pass through.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

ACCOUNT_NAME = "lifeline-demo"
_PR_SET_PDEATHSIG = 1
# From <linux/capability.h>.
_CAP_DAC_READ_SEARCH = 2
_UNLESS_ORPHANED = ("/bin/sh", "-c", 'test "$PPID" = "$0" && exec "$@"')
"""Closes the gap before setpriv has set the death signal: the next argument is the parent that must still be there."""
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class LaunchError(Exception):
    """A program cannot be started here; the text says what is missing and what to do."""


class Account(NamedTuple):
    """The system user that servers run as when we are root."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for servers: None where we are not root (they run as ourselves).

    As root it is ``lifeline-demo``, made when missing, or ``nobody`` where users cannot be added.
    Raises :class:`LaunchError`.
    """
    if os.geteuid() != 0:
        return None
    if find_program("setpriv") is None:
        raise LaunchError("setpriv (package util-linux) is needed to start servers as root: install it, or be no root")
    found = _account(ACCOUNT_NAME)
    if found is None:
        _add_account()
        found = _account(ACCOUNT_NAME) or _account("nobody")
    if found is None:
        raise LaunchError(f"there is no user {ACCOUNT_NAME} to run servers as: useradd --system {ACCOUNT_NAME}")
    return found


def _account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _add_account() -> None:
    program = find_program("useradd")
    if program is None:
        return
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    # Failing is no error yet: two of us may add it at once, and `nobody` is left.
    subprocess.run(
        [program, *options, "--shell", "/usr/sbin/nologin", ACCOUNT_NAME], capture_output=True, check=False, timeout=30
    )


def find_program(name: str) -> str | None:
    """The path of a program: on PATH, or where Debian keeps servers (not on every user's PATH). None if missing."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SBIN))


def make_directory(directory: Path, account: Account | None) -> Path:
    """Make ``directory``, closed to all but ``account`` (None: ourselves); its parent is there."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(directory, account.uid, account.gid)
    return directory


def write_private(path: Path, content: str, account: Account | None = None) -> None:
    """Write a file that only ``account`` (or ourselves) can read, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def start(
    argv: Sequence[str],
    *,
    output: BinaryIO | int,
    environ: Mapping[str, str] | None = None,
    account: Account | None = None,
    reaches: Sequence[Path] = (),
    death_signal: int = signal.SIGKILL,
    directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a session of its own (a terminal's Ctrl-C does not reach it), as ``account`` where given.

    ``reaches`` are the files it must get at. When the *thread* that calls this ends, the kernel sends the program
    ``death_signal``: call it from a thread that lives as long as the process. Linux only; elsewhere it may outlive us.
    """
    if account is not None:
        argv = [*_as_account(account, reaches, death_signal), *_UNLESS_ORPHANED, str(os.getpid()), *argv]
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=None if environ is None else dict(environ),
        cwd=directory,
        start_new_session=True,
        # A change of user clears the death signal, so there setpriv sets it.
        preexec_fn=None if account is not None else _die_with_parent(death_signal),  # noqa: PLW1509 (takes no locks)
    )


def _die_with_parent(death_signal: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before we asked to be told
            os._exit(1)

    return prepare


def _as_account(account: Account, reaches: Sequence[Path], death_signal: int) -> list[str]:
    setpriv = find_program("setpriv")
    assert setpriv is not None
    command = [setpriv, f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups", "--no-new-privs"]
    command.append(f"--pdeathsig={signal.Signals(death_signal).name.removeprefix('SIG')}")
    if all(_is_open_to(account, path) for path in reaches):
        return [*command, "--inh-caps=-all", "--bounding-set=-all"]
    capability = _passing_capability()
    # access(2) forgets capabilities of users other than root unless the set-user-ID fix-up is off.
    return [
        *command,
        "--securebits=+no_setuid_fixup",
        f"--inh-caps=-all,+{capability}",
        f"--ambient-caps=-all,+{capability}",
        f"--bounding-set=-all,+{capability}",
    ]


def _is_open_to(account: Account, path: Path) -> bool:
    """Whether ``account`` may enter every directory above ``path``, by their modes."""
    return all(_may_enter(account, parent.stat()) for parent in path.absolute().parents)


def _may_enter(account: Account, entry: os.stat_result) -> bool:
    if entry.st_uid == account.uid:
        return bool(entry.st_mode & stat.S_IXUSR)
    if entry.st_gid == account.gid:
        return bool(entry.st_mode & stat.S_IXGRP)
    return bool(entry.st_mode & stat.S_IXOTH)


def _passing_capability() -> str:
    """The capability that lets a program pass through closed directories.

    Reading and searching is enough; containers often withhold just that one from their root and leave
    ``dac_override``, which does more than we need but belongs to a root that is confined already.
    """
    if _own_capabilities() >> _CAP_DAC_READ_SEARCH & 1:
        return "dac_read_search"
    return "dac_override"


def _own_capabilities() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0
