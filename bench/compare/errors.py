"""Why two commits could not be compared, in one sentence."""

from __future__ import annotations

import click


class ComparisonError(click.ClickException):
    """The comparison cannot be made, or one side of it failed; the message names the remedy."""
