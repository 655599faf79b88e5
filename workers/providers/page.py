"""Prints docs/providers.md from the profiles: ``python -m forebay.workers.providers.page``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from forebay.workers.providers.facts import UNVERIFIED, ProviderProfile, Source
from forebay.workers.providers.registry import BUILT_IN, ENTRY_POINTS

_HEAD = f"""# Providers: what is read from where

Made from the profiles in `workers/providers/` by `python -m forebay.workers.providers.page`; a test
keeps it current. A provider has one profile, a table of facts, each with the page that it was read
from. What nobody has read of a provider is read as at the others: a status, a header or a code
that one provider uses means the same at a host that nobody knows. CONTRIBUTING.md says how to add
a profile; a package adds one by an entry point of the group `{ENTRY_POINTS}`.

On every host alike: `retry-after` as seconds or a date; texts such as `try again in 7m12s` and
`retry after 37 seconds`; budgets that a text or a header's name spells out (`tokens per day`,
`TPM`, `x-ratelimit-remaining-tokens-minute`); a refusal that names a request larger than its
limit. A budget of a day or month that tells no refill is tried once an hour.
"""


def providers_page() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(line for profile in BUILT_IN for line in _section(profile))])


def _section(profile: ProviderProfile) -> Iterator[str]:
    yield f"## {profile.title}\n"
    hosts = _codes(profile.hosts) if profile.hosts else "none known: by its paths on any host"
    named = "the host" if profile.named_by_host or not profile.hosts else f"`{profile.name}`"
    yield f"Hosts: {hosts}. The provider's name in keys is {named}.\n"
    yield "| what | where | read from |"
    yield "| --- | --- | --- |"
    for what, where, source in _rows(profile):
        if where:
            yield f"| {what} | {where} | {_cited(source)} |"
    yield ""
    for note in profile.notes:
        yield f"* {note}"
    if profile.notes:
        yield ""


def _rows(profile: ProviderProfile) -> Iterator[tuple[str, str, Source]]:
    by_domain: dict[tuple[str, Source], list[str]] = {}
    for one in profile.endpoints:
        domain = "no lease" if one.domain is None else f"{one.domain} calls"
        by_domain.setdefault((domain, one.source), []).append(f"{one.method} {one.path}".strip())
    for (domain, source), paths in by_domain.items():
        yield domain, _codes(paths), source
    if (body := profile.body) is not None:
        yield "model in the body", _codes(body.models), body.source
        yield "what the model reads", _codes(body.prompts), body.source
        yield "bound of the output", _codes(body.bounds), body.source
        for part in body.parts:
            cost = f"{part.tokens} tokens" if part.tokens else f"{part.per_kilobyte:g} tokens a kB"
            yield f"a part `{part.named}`", cost, part.source
    if (usage := profile.usage) is not None:
        yield "usage", _codes(place or "the document" for place in usage.places), usage.source
        yield "input tokens", _codes(usage.inputs), usage.source
        yield "counted beside the input", _codes(usage.more_inputs), usage.source
        yield "of the input, free", _codes(usage.free_inputs), usage.source
        yield "output tokens", _codes((*usage.outputs, *usage.more_outputs)), usage.source
    if (refusals := profile.refusals) is not None:
        statuses = map(str, sorted(refusals.overload_statuses))
        yield "overload, by status", _codes(statuses), refusals.source
        yield "overload, by code", _codes(sorted(refusals.overload)), refusals.source
        yield "about the account", _codes(sorted(refusals.account)), refusals.source
        yield "about one request", _codes(sorted(refusals.request)), refusals.source
        yield "code in a header", _codes(refusals.headers), refusals.source
    if (waits := profile.waits) is not None:
        yield (
            "wait, in headers",
            _codes(f"{name} ({form})" for name, form in waits.headers),
            (waits.source),
        )
        yield (
            "wait, in the body",
            _codes(f"{path} ({form})" for path, form in waits.fields),
            (waits.source),
        )
        yield "budget, in the body", _codes(waits.budget_fields), waits.source
        texts = (f"{pattern} = {budget}" for pattern, budget in waits.budget_texts)
        yield "budget, in the text", _codes(texts), waits.source
        resets = (
            f"{name} = {unit}, {period or 'by the reset'}" for unit, period, name, _ in waits.resets
        )
        yield "resets", _codes(resets), waits.source
        yield "a day ends at midnight of", waits.day_ends, waits.source
    if (streams := profile.streams) is not None:
        yield "streams", _codes(streams.kinds), streams.source
        yield "last event", _codes(streams.last), streams.source
        yield "event of an error", _codes((*streams.failed, *streams.failed_choice)), streams.source


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`".replace("|", "\\|") for name in names)


def _cited(source: Source) -> str:
    return "unverified" if source == UNVERIFIED else f"{source.page} ({source.read_on})"


if __name__ == "__main__":
    print(providers_page(), end="")  # noqa: T201
