"""The entry point of the command line: handles Ctrl-C first, then imports the commands.

These imports take a few hundred milliseconds. An interrupt of Python's own start, before this
module runs, is still shown as Python shows it.
"""

from __future__ import annotations

import signal

from forebay.interrupts import end_at_once


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGINT, end_at_once)
    from forebay.cli import main as run  # noqa: PLC0415 - see the top

    run()
