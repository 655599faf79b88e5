"""The error of a comparison that failed."""

from __future__ import annotations

import click


class ComparisonError(click.ClickException):
    """The comparison cannot be made, or one side of it failed; the message names the remedy."""
