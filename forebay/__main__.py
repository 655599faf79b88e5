"""`python -m forebay` is the command line; so is this file, run by its path.

By its path it runs where the user's folder must not come before installed packages on `sys.path`
(see `forebay.runtime.start_worker`), and in a checkout that was never installed.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from forebay.start import main

main()
