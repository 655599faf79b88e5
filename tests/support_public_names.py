"""What ``forebay`` exports: its functions, classes and their own public methods, by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import forebay

OF_ARQ = {
    "ForebayWorker": ("async_run", "run", "close", "drained", "is_stopping"),
    "JobPool": ("enqueue_job", "job", "queued_jobs", "all_job_results", "aclose"),
}
"""Of classes that arq's code calls: the methods that are for users."""


def public_objects() -> Iterator[tuple[str, object]]:
    """Yield each exported class and function, and each public method and property of a class."""
    for name in sorted(forebay.__all__):
        exported = getattr(forebay, name)
        if inspect.isclass(exported):
            yield name, exported
            yield from ((f"{name}.{own}", found) for own, found in methods_of(exported))
        elif inspect.isfunction(exported):
            yield name, exported


def methods_of(exported: type) -> Iterator[tuple[str, object]]:
    """Yield the public methods and properties that Forebay's own code gives to a class."""
    chosen = OF_ARQ.get(exported.__name__)
    for name, found in inspect.getmembers_static(exported):
        if isinstance(found, classmethod | staticmethod):
            found = found.__func__  # noqa: PLW2901 - the function that it wraps
        if name.startswith("_") or not isinstance(found, property | type(methods_of)):
            continue
        made_by = found.fget if isinstance(found, property) else found
        if getattr(made_by, "__module__", "").startswith("forebay.") and (
            chosen is None or name in chosen
        ):
            yield name, found
