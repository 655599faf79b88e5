"""The sides of the comparison: each reaches the same provider, directly or through a proxy."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.shared_capacity.children import child, find_litellm, free_port, wait_for_answer

MODEL: Final = "transport"
PROVIDER: Final = "bench"
LIMITED: Final = "limited"
"""The provider that refuses above its limit, and its model at LiteLLM."""
TOLD: Final = "told"
"""The mock provider's model in LiteLLM's proxy, which is configured with its limit."""
KEY: Final = "sk-local"
"""The key that callers send, which is LiteLLM's master key."""

_ROOT: Final = Path(__file__).parents[2]
_LITELLM_YAML: Final = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{at_once}", api_key: any}}
  - model_name: {limited}
    litellm_params: {{model: openai/{model}, api_base: "{unknown}", api_key: any}}
  - model_name: {told}
    litellm_params:
      {{model: openai/{model}, api_base: "{known}", api_key: any, max_parallel_requests: {limit}}}
router_settings:
  # a call that is refused is the client's to make again, on every side
  num_retries: 0
  disable_cooldowns: true
general_settings:
  master_key: {key}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of the providers.

    Attributes:
        at_once: the one that answers at once.
        limited: those that refuse above their limit, by the name of the side that calls each.
    """

    at_once: int
    limited: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to the provider.

    Attributes:
        name: ``direct``, ``forebay``, ``litellm``, or ``litellm-told``, which knows the limit.
        port: where it is called, on the loopback.
        process_id: of the proxy; None where there is none.
        path: a prefix of the API's paths.
        model: the model that callers name.
    """

    name: str
    port: int
    process_id: int | None
    path: str = ""
    model: str = MODEL

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the proxy's process and its children have used so far."""
        if self.process_id is None:
            return 0.0
        found = (stat for path in Path("/proc").glob("[0-9]*") if (stat := _stat_of(path)))
        ticks = {pid: (parent, used) for pid, parent, used in found}
        own = {self.process_id}
        while more := {pid for pid, (parent, _) in ticks.items() if parent in own} - own:
            own |= more
        return sum(ticks[pid][1] for pid in own if pid in ticks) / os.sysconf("SC_CLK_TCK")


def _stat_of(path: Path) -> tuple[int, int, int] | None:
    """Return id, parent and CPU ticks of a process; None if it has ended meanwhile."""
    try:
        fields = (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(path.name), int(fields[1]), int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def forebay(folder: Path, ports: Ports, redis_url: str) -> Iterator[Side]:
    """Run ``forebay proxy`` in front of two providers; yield its side at the first."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "forebay", "proxy", "--port", str(port), "--url", redis_url),
        *("--upstream", f"{PROVIDER}=http://127.0.0.1:{ports.at_once}"),
        *("--upstream", f"{LIMITED}=http://127.0.0.1:{ports.limited['forebay']}"),
    ]
    output = folder / "forebay.out"
    with child(command, output, PYTHONPATH=str(_ROOT)) as process_id:
        wait_for_answer(f"http://127.0.0.1:{port}/healthz", output)
        yield Side(name="forebay", port=port, process_id=process_id)


@contextlib.contextmanager
def litellm(folder: Path, ports: Ports, program: Path, limit: int) -> Iterator[Side]:
    """Run LiteLLM's proxy in front of three providers; yield its side at the first.

    Args:
        folder: for its files.
        ports: of the providers.
        program: LiteLLM's.
        limit: ``max_parallel_requests`` of the model `TOLD`; the others have none.
    """
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        _LITELLM_YAML.format(
            model=MODEL,
            limited=LIMITED,
            told=TOLD,
            limit=limit,
            at_once=f"http://127.0.0.1:{ports.at_once}/v1",
            unknown=f"http://127.0.0.1:{ports.limited['litellm']}/v1",
            known=f"http://127.0.0.1:{ports.limited['litellm-told']}/v1",
            key=KEY,
        )
    )
    output = folder / "litellm.out"
    command = [
        *(find_litellm(program), "--config", str(config)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with child(command, output, PYTHONUNBUFFERED="1", **environment) as process_id:
        wait_for_answer(f"http://127.0.0.1:{port}/health/liveliness", output)
        yield Side(name="litellm", port=port, process_id=process_id)
