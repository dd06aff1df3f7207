"""Layers as people write them become layer versions: each new content of a Layer is taken in and published under the next number.

Works in the gateway that settles, level-triggered over a watch: a Layer is due while its status speaks of another content than its
spec. The version is created first and the status written after it; a crash in between is found by the next look, because the newest
version already is what would be published. It refuses to change a version: what is published stays as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from kappa_core.names import layer_arn
from kappa_core.ports.store import ResourceStore, StoreError
from kappa_core.resources import AccountId, Code, LayerVersion, Region
from kappa_core.rules.publish import code_sha256
from kappa_crds import labels, names
from kappa_crds.api import ApiError, NotFound, Object, api_path
from kappa_crds.code import code_source
from kappa_crds.status import CODE_READY, condition
from kappa_crds.watching import ObjectKey, object_key
from kappa_gateway.kubernetes.code_sources import CodeSources
from kappa_gateway.operations.preparing import Unready
from kappa_gateway.operations.settle import PASSING_SECONDS

_log = logging.getLogger(__name__)

MANAGER: Final = names.GATEWAY_MANAGER
_RETRY_SECONDS: Final = 1.0
"""After the API server or the store could not be reached."""


class LayerApi(Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> Object: ...
    async def apply(self, path: str, body: Object, /, *, field_manager: str, force: bool) -> Object: ...


class LayerPublisher:
    """See the module. ``account_of`` is the account of a namespace; ``clock_ms`` is epoch milliseconds."""

    def __init__(
        self,
        api: LayerApi,
        *,
        store: ResourceStore,
        sources: CodeSources,
        account_of: Callable[[str], AccountId | None],
        default_region: str,
        clock_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._store = store
        self._sources = sources
        self._account_of = account_of
        self._default_region = default_region
        self._clock_ms = clock_ms
        self._sleep = sleep
        self._holds = False
        self._layers: dict[ObjectKey, Object] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}

    # -- what the watch brings -----------------------------------------------------------------------------------------
    def put(self, layer: Object) -> None:
        """A Layer is there, or has changed."""
        self._layers[object_key(layer)] = layer
        self._look(object_key(layer))

    def remove(self, layer: Object) -> None:
        self._layers.pop(object_key(layer), None)

    # -- terms ---------------------------------------------------------------------------------------------------------
    def take_over(self) -> None:
        """This gateway publishes from now on."""
        self._holds = True
        for key in self._layers:
            self._look(key)

    def stand_down(self) -> None:
        """Another gateway does."""
        self._holds = False
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Give up what is under way; the next term takes it up. Idempotent."""
        self.stand_down()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    # -- one layer -----------------------------------------------------------------------------------------------------
    def _look(self, key: ObjectKey) -> None:
        if self._holds and key in self._layers and key not in self._tasks and is_due(self._layers[key]):
            task = self._tasks[key] = asyncio.create_task(self._work(key), name=f"publish layer {key[1]}")
            task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: ObjectKey, done: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if done.cancelled():
            self._look(key)  # a term that ended and began again
        elif (error := done.exception()) is not None:
            _log.error("publishing layer %s/%s failed unexpectedly", *key, exc_info=error)

    async def _work(self, key: ObjectKey) -> None:
        """Until the layer is published, or will never be."""
        while self._holds and key in self._layers:
            try:
                found = await self._api.get(_path(key))
                seconds = await self._publish(found) if is_due(found) else None
            except NotFound:
                return
            except (ApiError, StoreError) as error:
                _log.warning("publishing layer %s/%s is put off: %s", *key, error)
                seconds = _RETRY_SECONDS
            else:
                if seconds is None and _generation(self._layers.get(key)) <= _generation(found):
                    return
            await self._sleep(seconds or 0.0)

    async def _publish(self, layer: Object) -> float | None:
        """Seconds after which to look again; None where there is nothing more to do."""
        metadata, spec = layer["metadata"], layer["spec"]
        account = self._account_of(metadata["namespace"])
        source = code_source(spec)
        if account is None or source is None:
            return None
        region = (metadata.get("labels") or {}).get(labels.REGION) or self._default_region
        try:
            code = await self._sources.take(source, namespace=metadata["namespace"], region=region)
        except Unready as unready:
            failure = _condition(layer, status="False", reason=unready.code, message=unready.reason, now_ms=self._clock_ms())
            if failure not in ((layer.get("status") or {}).get("conditions") or ()):
                before = {name: value for name, value in (layer.get("status") or {}).items() if name != "conditions"}
                await self._write(layer, before | {"conditions": [failure]})
            return PASSING_SECONDS if unready.passing else None
        version = await self._version(layer_name(layer), account, Region(region), code, spec)
        await self._write(
            layer,
            {
                "observedGeneration": metadata.get("generation", 1),
                "version": version.version,
                "layerVersionARN": layer_arn(account, region, version.name, version.version),
                "codeSHA256": code_sha256(code.sha256),
                "codeSize": code.size,
                "contentDigest": content_digest(spec),
                "conditions": [_condition(layer, status="True", reason="Published", message="", now_ms=self._clock_ms())],
            },
        )
        return None

    async def _version(self, name: str, account: AccountId, region: Region, code: Code, spec: Mapping[str, Any]) -> LayerVersion:
        """The newest version if it is this already, else a new one."""
        wanted = LayerVersion(
            account=account,
            region=region,
            name=name,
            version=0,
            code=code,
            description=spec.get("description", ""),
            license_info=spec.get("licenseInfo"),
            compatible_runtimes=tuple(spec.get("compatibleRuntimes") or ()),
            compatible_architectures=tuple(spec.get("compatibleArchitectures") or ()),
        )
        versions = await self._store.list("LayerVersion", account=account, region=region, name=name)
        newest = versions[-1] if versions else None
        if isinstance(newest, LayerVersion) and not newest.deleted:
            same = msgspec.structs.replace(newest, version=0, meta=wanted.meta, policy={})
            if same == wanted:
                return newest
        number = await self._store.allocate(f"layers/{account}/{region}/{name}")
        return await self._store.create(msgspec.structs.replace(wanted, version=number))

    async def _write(self, layer: Object, status: Object) -> None:
        metadata = layer["metadata"]
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.LAYER_KIND,
            "metadata": {name: metadata[name] for name in ("name", "namespace", "uid")},
            "status": status,
        }
        await self._api.apply(f"{_path(object_key(layer))}/status", body, field_manager=MANAGER, force=True)


def is_due(layer: Object) -> bool:
    """Whether the status speaks of another content than the spec."""
    return (layer.get("status") or {}).get("contentDigest") != content_digest(layer["spec"])


def content_digest(spec: Mapping[str, Any]) -> str:
    """32 hex digits that change exactly when another version would have to be published."""
    return hashlib.sha256(msgspec.json.encode(spec, order="sorted")).hexdigest()[:32]


def layer_name(layer: Object) -> str:
    name: str = layer["spec"].get("layerName") or layer["metadata"]["name"]
    return name


def _condition(layer: Object, *, status: Any, reason: str, message: str, now_ms: int) -> Object:
    return condition(
        (layer.get("status") or {}).get("conditions") or (),
        type=CODE_READY,
        status=status,
        reason=reason,
        message=message,
        generation=layer["metadata"].get("generation", 1),
        now_ms=now_ms,
    )


def _generation(layer: Object | None) -> int:
    return 0 if layer is None else int(layer["metadata"].get("generation", 1))


def _path(key: ObjectKey) -> str:
    return api_path(names.API_VERSION, names.KINDS[names.LAYER_KIND], namespace=key[0], name=key[1])
