"""A run's use of calls and tokens, kept by the server as JSON, name -> numbers (`use.lua`)."""

from __future__ import annotations

import json
from typing import Any, Final

from forebay.contracts.run_use import ColumnUse, ModelUse

_OF_COLUMN: Final = ""
"""Name of a column's own numbers, beside those of its models."""


def encode_use(use: ColumnUse) -> str:
    """Return a column's use as JSON to be added on the server."""
    numbers: dict[str, list[float]] = {
        _OF_COLUMN: [use.retried, use.waited, round(use.busy_seconds, 3)]
    }
    for name, model in use.models.items():
        numbers[name] = [
            model.calls,
            model.input_tokens,
            model.output_tokens,
            model.rate_limited,
            model.failed,
            round(model.busy_seconds, 3),
        ]
    return json.dumps(numbers, ensure_ascii=False, separators=(",", ":"))


def decode_use(made: bytes | None, used: bytes | None) -> ColumnUse:
    """Return the use of a column; pure.

    Args:
        made: cells that are there; None for none.
        used: sums of what `encode_use` returned; None where nothing was told.
    """
    numbers: dict[str, list[Any]] = json.loads(used) if used else {}
    retried, waited, busy_seconds = numbers.pop(_OF_COLUMN, (0, 0, 0.0))
    return ColumnUse(
        made=int(made or 0),
        retried=int(retried),
        waited=int(waited),
        busy_seconds=float(busy_seconds),
        models={name: _model_use(*told) for name, told in numbers.items()},
    )


def _model_use(
    calls: float,
    input_tokens: float,
    output_tokens: float,
    rate_limited: float,
    failed: float = 0,  # a worker of an earlier version tells no more
    busy_seconds: float = 0.0,
) -> ModelUse:
    return ModelUse(
        calls=int(calls),
        input_tokens=int(input_tokens),
        output_tokens=int(output_tokens),
        rate_limited=int(rate_limited),
        failed=int(failed),
        busy_seconds=float(busy_seconds),
    )
