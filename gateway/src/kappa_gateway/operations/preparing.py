"""What has to be there before a function may be invoked, and how it is brought about: what the settler asks, once for each change.

On one machine that is :class:`UnpackedCode`: code and layers unpacked, and an interpreter installed. In a cluster it is the code taken in
and an image configured (:mod:`kappa_gateway.kubernetes.preparing`). It decides nothing about states: it answers, or says what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kappa_core.errors import InvalidParameterValueException, LambdaError
from kappa_core.ports.blobs import BlobError, BlobNotFound
from kappa_core.ports.store import ResourceStore, StoreUnavailable
from kappa_core.resources import Configuration, Function, FunctionVersion, Key, Resource, Sha256
from kappa_core.rules import states
from kappa_core.rules.resolve import layer_digests
from kappa_gateway.code.trees import TreesUnavailable
from kappa_gateway.operations.reading import read_layers

_log = logging.getLogger(__name__)


class Unready(Exception):
    """A configuration that cannot be run here; ``code`` is one of AWS's StateReasonCode, ``passing`` says that it may be later on."""

    def __init__(self, reason: str, code: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.passing = passing


class Preparation(Protocol):
    """See the module."""

    async def prepare(self, resource: Function | FunctionVersion, /) -> Configuration:
        """What will run: the resource's configuration, with its code where that had still to be taken in.

        Raises Unready, and StoreUnavailable where it could not even be tried.
        """


class Trees(Protocol):
    """Unpacked code; see kappa_gateway.code.trees."""

    async def task_root(self, sha256: Sha256, /) -> Path: ...
    async def opt_root(self, layers: Sequence[Sha256], /) -> Path | None: ...


class Runtimes(Protocol):
    """What is installed to run functions."""

    async def look(self, runtime: str, /) -> None:
        """Find out about a runtime, however long that takes; `available` answers at once afterwards."""

    def available(self, runtime: str, /) -> str | None:
        """None, or one sentence that says what is missing and what was found instead."""


class UnpackedCode:
    """Code and layers as trees on this machine. Implements :class:`Preparation`."""

    def __init__(self, *, store: ResourceStore, trees: Trees, runtimes: Runtimes) -> None:
        self._store = store
        self._trees = trees
        self._runtimes = runtimes

    async def prepare(self, resource: Function | FunctionVersion, /) -> Configuration:
        configuration = resource.configuration
        await self._runtimes.look(configuration.runtime or "")
        missing = self._runtimes.available(configuration.runtime or "")
        if missing is not None:
            raise Unready(missing, states.INVALID_RUNTIME)
        try:
            layers = layer_digests(by_key(await read_layers(self._store, configuration.layers)), configuration)
            await self._trees.task_root(configuration.code.sha256)
            await self._trees.opt_root(layers)
        except StoreUnavailable:
            raise
        except InvalidParameterValueException as error:
            raise Unready(error.message or "The code is not usable.", states.INVALID_ZIP) from error
        except BlobNotFound as error:
            raise Unready("The code of the function is no longer there. Upload it again.", states.INTERNAL_ERROR) from error
        except (LambdaError, BlobError, TreesUnavailable, OSError) as error:
            raise Unready(f"The code could not be unpacked: {error}", states.INTERNAL_ERROR) from error
        except Exception as error:
            _log.exception("unpacking failed unexpectedly")
            raise Unready(f"The code could not be unpacked: {error!r}", states.INTERNAL_ERROR) from error
        return configuration


def by_key(layers: Mapping[str, Resource]) -> dict[Key, Resource]:
    return {layer.key: layer for layer in layers.values()}
