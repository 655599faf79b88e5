"""``make e2e-providers``: Forebay against providers that nobody here wrote, and a hidden one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.harness import InvariantBrokenError
from bench.shared_capacity import children
from forebay.contracts.errors import ConfigurationError
from tests.providers.books import Row, table
from tests.providers.hidden_limits import TRUTHS, hidden_limits
from tests.providers.scenarios import litellm, nginx

DEFAULT_LITELLM: Final = Path(".venv/apart/litellm-proxy/bin/litellm")


def main() -> int:
    """Run all parts or the named ones, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help="nginx, litellm, hidden-limits; default all")
    parser.add_argument("--litellm", type=Path, default=DEFAULT_LITELLM, help="its program")
    given = parser.parse_args()
    parts: Mapping[str, Callable[[], list[Row]]] = {
        "nginx": nginx,
        "litellm": lambda: litellm(given.litellm),
        "hidden-limits": lambda: [r for truth in TRUTHS.values() for r in hidden_limits(truth)],
    }
    chosen = given.part or list(parts)
    for name in chosen:
        if name not in parts:
            parser.error(f"{name} is no part, expected one of {', '.join(parts)}")
    rows: list[Row] = []
    try:
        # Both before anything runs: what is missing must not turn up after ten minutes.
        if "nginx" in chosen:
            children.find_nginx()
        if "litellm" in chosen:
            children.find_litellm(given.litellm)
        for name in chosen:
            rows += parts[name]()
    except (ConfigurationError, InvariantBrokenError) as error:
        print(f"e2e-providers: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
