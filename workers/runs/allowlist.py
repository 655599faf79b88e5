"""The allowlist of a worker: variables, files, hosts and code for workflows (design 06, ADR 0014).

Whoever can submit a run writes its workflow. So a worker reads no variable or file and calls no
host that it was not started with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

from forebay.contracts.checks import shown
from forebay.contracts.errors import ConfigurationError, RunRefused
from forebay.contracts.workflow import ProviderSpec, Workflow
from forebay.workers.generators.code import module_of

_ADDRESS_VARIABLE: Final = re.compile(r"FOREBAY_PROVIDER_[A-Z0-9_]+_BASE_URL")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PORTS: Final = {"http": 80, "https": 443}
_LAST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Host:
    """A host as it is compared: lower case, without a last dot, addresses in their short form.

    Attributes:
        name: host name or address.
        port: None stands for every port.
    """

    name: str
    port: int | None

    @classmethod
    def of_url(cls, url: str) -> Self:
        """Return the host and port that a call of ``url`` goes to, as the HTTP client reads it.

        Raises:
            ConfigurationError: it is no URL.
        """
        import httpx2  # noqa: PLC0415 - an extra

        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ConfigurationError(
                "a provider's base_url is no URL, expected http:// or https:// with a host; correct"
                " it."
            ) from error
        port = parsed.port or _PORTS.get(parsed.scheme)
        return cls(_compared(parsed.raw_host.decode("ascii")), port)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``HOST``, ``HOST:PORT`` or ``[ADDRESS]:PORT``.

        Raises:
            ConfigurationError: it is of another form.
        """
        import httpx2  # noqa: PLC0415 - an extra

        name, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or (":" in name and not name.endswith("]")):
            name, port = text, ""
        bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        url = f"http://[{bare}]" if ":" in bare else f"http://{name}"
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            raise _wrong_host(text) from None
        host = parsed.raw_host.decode("ascii")
        is_bare = parsed.raw_path in {b"", b"/"} and not (parsed.userinfo or parsed.fragment)
        if (
            not host
            or not is_bare
            or re.search(r"[^A-Za-z0-9._:-]", host)
            or int(port or 1) > _LAST_PORT
        ):
            raise _wrong_host(text)
        return cls(_compared(host), int(port) if port else None)

    def covers(self, other: Host) -> bool:
        """Return whether this host allows calls of ``other``."""
        return self.name == other.name and self.port in {None, other.port}

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return name if self.port is None else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowlist:
    """The things that workflows may use in one worker, by default none. Make it with `of`.

    Attributes:
        variables: environment variable to the hosts that its value may be sent to; None stands for
            all of ``hosts``.
        paths: folders, with all below them, and files; resolved.
        hosts: may be called.
        code: modules, with all below them, and plugins by name, which may run.
    """

    variables: Mapping[str, frozenset[Host] | None] = field(default_factory=dict)
    paths: tuple[Path, ...] = ()
    hosts: frozenset[Host] = frozenset()
    code: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        *,
        env: Iterable[str] = (),
        paths: Iterable[str | Path] = (),
        hosts: Iterable[str] = (),
        code: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Return an allowlist from what the options ``--allow-...`` of a worker take.

        Args:
            env: ``NAME``, or ``NAME=HOST[:PORT]`` for a variable that is for that host alone.
            paths: folders and files.
            hosts: ``HOST``, which allows every port, or ``HOST:PORT``.
            code: modules or packages, and names of plugins.
            environ: of the worker, whose own ``FOREBAY_PROVIDER_<NAME>_BASE_URL`` are hosts, too.

        Raises:
            ConfigurationError: one of another form.

        Example:
            >>> allowed = forebay.Allowlist.of(env=["OPENAI_API_KEY=api.openai.com"])
            >>> [str(host) for host in allowed.hosts]
            ['api.openai.com']
        """
        allowed = {Host.parse(host) for host in hosts}
        allowed |= {
            Host.of_url(url)
            for name, url in (environ or {}).items()
            if url and _ADDRESS_VARIABLE.fullmatch(name)
        }
        variables: dict[str, frozenset[Host] | None] = {}
        for text in env:
            name, bound, host = text.partition("=")
            if not _VARIABLE.fullmatch(name):
                raise ConfigurationError(
                    f"--allow-env {shown(text)} names no environment variable; expected NAME or"
                    " NAME=HOST[:PORT], such as OPENAI_API_KEY=api.openai.com."
                )
            if not bound:
                variables[name] = None
            elif (known := variables.get(name, frozenset())) is not None:
                variables[name] = known | {Host.parse(host)}
                allowed.add(Host.parse(host))
        return cls(
            variables=variables,
            paths=tuple(Path(os.path.realpath(path)) for path in paths),
            hosts=frozenset(allowed),
            code=frozenset(code),
        )

    def check(self, workflow: Workflow, worker: str) -> Workflow:
        """Return the workflow with its file's path resolved, so that no link can lead elsewhere.

        Args:
            workflow: with the addresses that this worker calls.
            worker: names this process in the message.

        Raises:
            RunRefused: it asks for a variable, file, host or code that is not allowed here.
        """
        wrong: list[tuple[str, str]] = []
        for name, provider in workflow.providers.items():
            wrong += self._wrong_with(name, provider)
        for module in _modules_of(workflow):
            if not any(f"{module}.".startswith(f"{allowed}.") for allowed in self.code):
                wrong.append((f"run the code {module}", f"--allow-code {module}"))
        seed = workflow.seed
        if seed is not None:
            path = Path(os.path.realpath(seed.path))
            if not any(path.is_relative_to(allowed) for allowed in self.paths):
                wrong.append(
                    (f"read the seed file {seed.path}", f"--allow-path {Path(seed.path).parent}")
                )
            seed = seed.model_copy(update={"path": str(path)})
        if wrong:
            asked, options = zip(*wrong, strict=True)
            raise RunRefused(
                f"worker {worker} may not {', nor '.join(asked)}; start it with"
                f" {' '.join(dict.fromkeys(options))} if workflows may do so."
            )
        return workflow.model_copy(update={"seed": seed})

    def _wrong_with(self, name: str, provider: ProviderSpec) -> Iterator[tuple[str, str]]:
        """Yield each thing of a provider that is not allowed, with the option that allows it."""
        host, variable = Host.of_url(provider.base_url), provider.api_key_env
        if variable is not None:
            bound = self.variables.get(variable, frozenset())
            if bound is not None and not any(allowed.covers(host) for allowed in bound):
                what = f"send variable {variable} to {host}, as provider {name!r} asks"
                yield what, f"--allow-env {variable}={host}"
                return
        if not any(allowed.covers(host) for allowed in self.hosts):
            what = f"call {host}, the base_url of provider {name!r}"
            if variable is not None:
                what += f", with variable {variable}"
            yield what, f"--allow-host {host}"


def options_for(workflow: Workflow) -> list[str]:
    """Return the worker options that allow exactly what a workflow uses."""
    options = [] if workflow.seed is None else ["--allow-path", workflow.seed.path]
    for provider in workflow.providers.values():
        host = Host.of_url(provider.base_url)
        options += ["--allow-host", str(host)]
        if provider.api_key_env is not None:
            options += ["--allow-env", f"{provider.api_key_env}={host}"]
    for module in _modules_of(workflow):
        options += ["--allow-code", module]
    return options


def _modules_of(workflow: Workflow) -> list[str]:
    """Return the modules and plugins whose code a workflow names."""
    functions = [getattr(column.spec, "function", None) for column in workflow.columns]
    return list(dict.fromkeys(module_of(target) for target in functions if target))


def _compared(name: str) -> str:
    try:
        return ip_address(name).compressed
    except ValueError:
        return name.lower().removesuffix(".")


def _wrong_host(text: str) -> ConfigurationError:
    return ConfigurationError(
        f"{shown(text)} is no host, expected HOST or HOST:PORT without scheme, path or wildcard,"
        " such as api.openai.com or 127.0.0.1:8089; correct --allow-host or --allow-env."
    )
