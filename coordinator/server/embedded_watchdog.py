"""The program that runs one embedded server and ends it with its owner process.

Usage: ``python embedded_watchdog.py LOCK_FD [FOLDER ...] -- SERVER [ARGUMENT ...]``

Standard input is a pipe whose write end the owner alone holds: at its end, which the kernel brings
about however the owner ends, the server is stopped and the FOLDERs are removed. When the server
ends by itself this program ends too and removes nothing. It is run by path and imports the
standard library alone, so that it starts in a few hundredths of a second.

Why not ``PR_SET_PDEATHSIG``: it is unknown to macOS, it fires when the *thread* that started the
server ends, and it has to be set between fork and exec, which is unsafe in a program with threads.
Why the server is this program's child: an unreaped child's pid is never given to another process,
so no stranger can be killed in its place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

# Nothing is lost after it: each write reached the kernel before its reply went out.
GRACE_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Starts the server, waits for its end or the owner's, and cleans up after the latter.

    Args:
        arguments: as in the usage line. LOCK_FD is an open, flocked file: it is handed to the
            server, so that the data folder stays locked for as long as the server lives, even
            where this program is killed.

    Returns:
        The exit status: 0 when the owner ended, else 1.
    """
    end_of_folders = arguments.index("--")
    lock_fd, folders = int(arguments[0]), arguments[1:end_of_folders]
    server = subprocess.Popen(
        arguments[end_of_folders + 1 :], stdin=subprocess.DEVNULL, pass_fds=[lock_fd]
    )
    # After the start, since a child inherits what is ignored. Only the end of the server or of the
    # owner ends this program.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner_ended, server_ended = threading.Event(), threading.Event()

    def stop_server_after_owner() -> None:
        with contextlib.suppress(OSError):  # a pipe that cannot be read says as much
            while os.read(0, 1):
                pass
        owner_ended.set()
        server.terminate()
        if not server_ended.wait(GRACE_SECONDS):
            server.kill()

    threading.Thread(target=stop_server_after_owner, daemon=True).start()
    server.wait()
    server_ended.set()
    if not owner_ended.is_set():
        return 1
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
