"""ConfigMaps that functions take their code from, watched for changes: an edit of one is an update of the functions made of it.

Runs in the gateway that settles, from the beginning of its term to the end. The watch is of metadata alone: which ConfigMaps there are,
in which version; what one says is read when a function needs it. The first list tells of every ConfigMap, so what changed while nobody
settled is found as well. One that is deleted changes nothing: the code that was taken in stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from kappa_core.resources import Key
from kappa_crds.api import Object, WatchedApi, api_path
from kappa_crds.watching import ChangeType, Informer


class ChangedSources:
    """See the module.

    ``api`` answers with metadata; ``namespaces`` are those that may be read, none for all; ``made_of`` knows the functions by namespace
    and name of their ConfigMap; ``changed`` is told each of them.
    """

    def __init__(
        self,
        api: WatchedApi,
        *,
        namespaces: Sequence[str],
        made_of: Callable[[str, str], Sequence[Key]],
        changed: Callable[[Key], None],
    ) -> None:
        self._api = api
        self._namespaces = tuple(namespaces) or ("",)
        self._made_of = made_of
        self._changed = changed

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for namespace in self._namespaces:
                path = api_path("v1", "configmaps", namespace=namespace)
                informer = Informer(self._api, path, on_change=self._told, trim=_version_of)
                group.create_task(informer.run(), name=f"watch {path}")

    def _told(self, type_: ChangeType, config_map: Object) -> None:
        if type_ == "DELETED":
            return
        metadata = config_map["metadata"]
        for key in self._made_of(metadata["namespace"], metadata["name"]):
            self._changed(key)


def _version_of(config_map: Object) -> Object:
    """All that is kept of one."""
    kept = ("namespace", "name", "uid", "resourceVersion")
    return {"metadata": {name: config_map["metadata"][name] for name in kept}}
