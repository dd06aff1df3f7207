"""Which namespaces are served, and what each of them needs before functions can run in it.

A namespace is an account: the one in its label ``lambda.kappa.dev/account-id``, or 000000000000 for the default one.
In a served namespace with functions there is the NetworkPolicy of their pods and the ConfigMap with the authority of the gateways'
certificates, both made before the first Deployment is.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Callable
from typing import Final, Protocol

from kappa_crds import labels, names
from kappa_crds.api import ApiError, Forbidden, NotFound, Object, api_path
from kappa_operator.cache import Cache, Ref, Within
from kappa_operator.reconcile.compare import satisfies
from kappa_operator.reconcile.network import POLICY, network_policy
from kappa_operator.reconcile.owned import MANAGED
from kappa_operator.reconcile.pods import LINK_AUTHORITY
from kappa_operator.settings import NetworkSettings
from kappa_operator.workqueue import Later, WriteBudget
from kappa_operator.writer import Writer

DEFAULT_ACCOUNT: Final = "000000000000"
LINK_SECRET: Final = "kappa-link-tls"  # noqa: S105 - a name
_LOOK_SECONDS: Final = 60.0
"""Between two looks at the authority and the API server's addresses; both change about never."""

log = logging.getLogger(__name__)


class Accounts:
    """The rule of which account a namespace is."""

    def __init__(self, cache: Cache, *, namespace_default: str, only: tuple[str, ...]) -> None:
        self._cache = cache
        self._default = namespace_default
        self._only = only

    def of(self, namespace: str) -> str | None:
        """The account; None for a namespace that is not served, not known or about to be gone."""
        thing = self._cache.get(Ref("Namespace", "", namespace))
        if thing is None or thing["metadata"].get("deletionTimestamp") or (self._only and namespace not in self._only):
            return None
        given: str | None = (thing["metadata"].get("labels") or {}).get(labels.ACCOUNT_ID)
        if given is None:
            return DEFAULT_ACCOUNT if namespace == self._default else None
        return given if re.fullmatch(r"[0-9]{12}", given) else None

    def leaving(self, namespace: str) -> bool:
        """Whether the namespace is being deleted, or gone."""
        thing = self._cache.get(Ref("Namespace", "", namespace))
        return thing is None or bool(thing["metadata"].get("deletionTimestamp"))


class ReadingApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> Object: ...
    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool = False) -> Object: ...


class Surroundings:
    """What lies outside the watched namespaces: the links' authority and the API server's addresses. :meth:`run` keeps looking."""

    def __init__(self, api: ReadingApi, *, release_namespace: str, changed: Callable[[], None]) -> None:
        self._api = api
        self._secret = api_path("v1", "secrets", namespace=release_namespace, name=LINK_SECRET)
        self._changed = changed
        self.authority: str | None = None
        """PEM; None as long as there is none."""
        self.api_server: tuple[str, ...] = ()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            before = (self.authority, self.api_server)
            try:
                await self.look()
            except ApiError as error:
                log.warning("cannot look at the links' authority: %s", error)
            if (self.authority, self.api_server) != before:
                self._changed()
            await asyncio.sleep(_LOOK_SECONDS if self.authority else 2.0)

    async def look(self) -> None:
        """Once. Raises ApiError."""
        slices = api_path("discovery.k8s.io/v1", "endpointslices", namespace="default", name="kubernetes")
        try:
            found = await self._api.get(slices)
        except (NotFound, Forbidden) as error:
            log.info("the API server's addresses are not known, private ranges apart functions may reach them: %s", error)
        else:
            self.api_server = tuple(sorted(each for one in found.get("endpoints") or () for each in one.get("addresses") or ()))
        try:
            secret = await self._api.get(self._secret)
        except NotFound:
            return
        self.authority = _text(secret, "ca.crt")


class Namespaces:
    """Prepares namespaces; ``policies`` off leaves the network to others."""

    def __init__(
        self,
        api: ReadingApi,
        *,
        cache: Cache,
        writer: Writer,
        budget: WriteBudget,
        accounts: Accounts,
        surroundings: Surroundings,
        network: NetworkSettings,
        policies: bool,
    ) -> None:
        self._api = api
        self._cache = cache
        self._writer = writer
        self._budget = budget
        self._accounts = accounts
        self._surroundings = surroundings
        self._network = network
        self._policies = policies
        self._given: dict[str, str] = {}
        """Namespace → the authority that its ConfigMap was seen with."""

    def ready(self, namespace: str) -> bool:
        """Whether pods can run there."""
        authority = self._surroundings.authority
        return authority is not None and self._given.get(namespace) == authority and self._policed(namespace)

    async def prepare(self, namespace: str) -> None:
        """Make what is missing. Raises Later, ApiError."""
        if self._accounts.of(namespace) is None:
            self._given.pop(namespace, None)
            return
        if not self._cache.lookup("Function", Within(namespace)):
            return
        authority = self._surroundings.authority
        if authority is None:
            raise Later(f"there is no Secret {LINK_SECRET} with the links' authority yet", seconds=2.0)
        if not self._policed(namespace):
            await self._writer.apply("NetworkPolicy", self._policy(namespace))
        await self._give(namespace, authority)

    def _policed(self, namespace: str) -> bool:
        if not self._policies:
            return True
        there = self._cache.get(Ref("NetworkPolicy", namespace, POLICY))
        return there is not None and satisfies(there, self._policy(namespace))

    def _policy(self, namespace: str) -> Object:
        return network_policy(namespace, settings=self._network, api_server=self._surroundings.api_server)

    async def _give(self, namespace: str, authority: str) -> None:
        path = api_path("v1", "configmaps", namespace=namespace, name=LINK_AUTHORITY)
        wanted = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": LINK_AUTHORITY, "namespace": namespace, "labels": MANAGED},
            "data": {"ca.crt": authority},
        }
        try:
            there = satisfies(await self._api.get(path), wanted)
        except NotFound:
            there = False
        if not there:
            await self._budget.take()
            await self._api.apply(path, wanted, field_manager=names.OPERATOR_MANAGER, force=True)
        self._given[namespace] = authority


def _text(secret: Object, key: str) -> str | None:
    value = (secret.get("data") or {}).get(key)
    return None if not value else base64.b64decode(value).decode()
