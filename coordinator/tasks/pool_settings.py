"""A task pool's settings for admission: limits, policy, state (design 04)."""

from __future__ import annotations

from typing import Literal

from forebay.contracts.checks import check_type
from forebay.contracts.errors import ConfigurationError
from forebay.contracts.identity import SUBMISSION
from forebay.contracts.task_policies import TaskAdmissionConfig
from forebay.coordinator.shard.session import Session
from forebay.coordinator.tasks.operations import Named
from forebay.coordinator.tasks.registering import Claim, Configure
from forebay.coordinator.tasks.upkeep import Upkeep

PoolState = Literal["open", "paused", "draining"]


class PoolSettings:
    """Changes a pool's settings; its members remember them for a rebuild.

    Attributes:
        session: of the pool.
    """

    session: Session
    _upkeep: Upkeep

    async def configure(self, config: TaskAdmissionConfig) -> None:
        """Set limits, policy and reservation of the pool, for all its members, from now on.

        Raises:
            ConfigurationError: another type.
            CoordinatorError: the shared state could not be used.
        """
        check_type("config of a pool", config, TaskAdmissionConfig)
        limits = {**config.resource_limits, SUBMISSION: config.submission_capacity}
        for resource, limit in limits.items():
            await self.set_limit(resource, limit, holder="config")
        await self.session.ask(Configure(config))
        self._upkeep.sweep()

    async def set_limit(self, resource: str, limit: int, *, holder: str = "pool") -> int:
        """Claim a limit for a resource; the smallest claim of all holders counts.

        Lowering takes nothing from leases that are out; queued tasks that ask for more are parked.
        At 0 no task that asks for the resource starts; tasks are still taken, and parked.

        Args:
            resource: ``submission``, ``local``, ``request:<provider>/<model>`` or the user's own.
            limit: units that may be out on leases at once, 0 for none.
            holder: who claims, such as a run's id; claiming again replaces the holder's own.

        Returns:
            The limit now in force.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ConfigurationError(
                f"the limit of resource {resource!r} is {limit!r}, expected a whole number from 0"
                " on; drop_limit takes a claim back."
            )
        return await self._claim(Claim(resource, holder, limit))

    async def drop_limit(self, resource: str, *, holder: str = "pool") -> int:
        """Take back a holder's claim; return the limit now in force, 0 also where none is left."""
        return await self._claim(Claim(resource, holder, None))

    async def _claim(self, claim: Claim) -> int:
        in_force = await self.session.ask(claim)
        self._upkeep.sweep()
        return in_force

    async def set_state(self, state: PoolState) -> None:
        """Pause, drain or open the pool for all its members.

        A paused pool admits nothing; what runs goes on. A draining one takes no new tasks
        (``shutdown``) and goes on with those that it has. It makes the pool if there is none; an
        operator, who may mistype a name, uses `set_pool_state`.

        Raises:
            ConfigurationError: no such state.
        """
        words: dict[PoolState, str] = {"open": "", "paused": "paused", "draining": "draining"}
        if state not in words:
            raise ConfigurationError(
                f"the state of a pool is {state!r}, expected one of {', '.join(words)}; use one."
            )
        await self.session.ask(Named("set_state", (words[state],)))
        self._upkeep.sweep()
