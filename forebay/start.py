"""The entry point of the command line: from here on Ctrl-C ends it with one line.

It imports the rest only then, which takes a few hundred milliseconds. Python's own start, before
it, is not ours to change.
"""

from __future__ import annotations

import signal

from forebay.interrupts import end_at_once


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGINT, end_at_once)
    from forebay.cli import main as run  # noqa: PLC0415 - see the top

    run()
