"""The controller put together: what is heard goes into the cache, what it concerns into the queue, and from there to the reconciler.

It knows one API to read and write by and settings; who tells it of changes, kopf's watches in the process and a twin of the API in
tests, is not its business. Nothing is reconciled before :meth:`Controller.begin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from kappa_crds.api import Object
from kappa_operator.cache import Cache, Ref, indexers, ref_of
from kappa_operator.concerns import concerned
from kappa_operator.namespaces import Accounts, Namespaces, ReadingApi, Surroundings
from kappa_operator.reconciler import Reconciler
from kappa_operator.settings import Settings
from kappa_operator.workqueue import Observer, WorkQueue, WriteBudget
from kappa_operator.writer import Writer, WritingApi


class Api(ReadingApi, WritingApi, Protocol):
    """What a controller needs of the API."""


class Controller:
    """See the module; ``reconciled`` and ``wrote`` count."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        *,
        reconciled: Observer = lambda key, result, seconds: None,
        wrote: Callable[[str, str], None] = lambda kind, verb: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._region = settings.region
        self.cache = Cache(indexers(default_region=settings.region))
        budget = WriteBudget(per_second=settings.writes_per_second, burst=settings.write_burst)
        writer = Writer(api, heard=self._wrote, budget=budget, identity=settings.pod_name, wrote=wrote, now=now)
        accounts = Accounts(self.cache, namespace_default=settings.namespace_default, only=settings.watch_namespaces)
        self.surroundings = Surroundings(api, release_namespace=settings.namespace, changed=self._all_namespaces)
        namespaces = Namespaces(
            api,
            cache=self.cache,
            writer=writer,
            budget=budget,
            accounts=accounts,
            surroundings=self.surroundings,
            network=settings.network,
            policies=settings.network_policies,
        )
        self._reconciler = Reconciler(
            cache=self.cache,
            writer=writer,
            accounts=accounts,
            namespaces=namespaces,
            pods=settings.pods,
            region=settings.region,
            wanted_seconds=settings.wanted_seconds,
            linger_seconds=settings.linger_seconds,
            enqueue=self.enqueue,
            now=now,
        )
        self.queue: WorkQueue[Ref] = WorkQueue(self._reconcile, workers=settings.workers, observe=reconciled)
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Everything is in the cache: what is decided on half of it is decided wrongly."""
        self._begun.set()

    @property
    def begun(self) -> bool:
        return self._begun.is_set()

    def hear(self, kind: str, gone: bool, thing: Object) -> None:
        """The state of an object, or with ``gone`` its last one."""
        before = self.cache.get(ref_of(kind, thing))
        if not (self.cache.drop(kind, thing) if gone else self.cache.put(kind, thing)):
            return
        after = None if gone else thing
        for ref in concerned(self.cache, kind, before, after, default_region=self._region):
            self.queue.add(ref)

    def enqueue(self, ref: Ref) -> None:
        """Look at this object again."""
        self.queue.add(ref)

    async def _reconcile(self, ref: Ref) -> float | None:
        await self._begun.wait()
        return await self._reconciler(ref)

    def _wrote(self, kind: str, thing: Object) -> None:
        self.hear(kind, False, thing)

    def _all_namespaces(self) -> None:
        for thing in self.cache.of_kind("Namespace"):
            self.queue.add(ref_of("Namespace", thing))
