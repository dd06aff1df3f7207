"""What an event runs on at this attempt, and who is told of its end: the index asked anew each time.

So an alias that moved, code that was updated and a configuration that changed hold for events that already wait (recorded). The
dead-letter queue is that of $LATEST for all versions. It refuses to guess: an event counts as orphaned only when the store itself has no
function with its uid, because the index of another gateway's write may be behind.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from kappa_core.errors import LambdaError, ServiceUnavailableException
from kappa_core.names import function_arn, split_function
from kappa_core.ports.queue import Event
from kappa_core.ports.store import ResourceStore
from kappa_core.resources import LATEST, AccountId, EventInvokeConfig, Function, Key, Region, Resource
from kappa_core.rules.deletion import belongs
from kappa_core.rules.retry import MAXIMUM_EVENT_AGE_SECONDS, MAXIMUM_RETRY_ATTEMPTS, Terms
from kappa_gateway.hot.path import Caller
from kappa_gateway.hot.routes import Route


class FunctionGone(Exception):
    """The function that the event was for has been deleted."""


class Target(NamedTuple):
    """An event's function at this moment."""

    account: str
    function: str
    qualifier: str
    """As invoked, ``$LATEST`` where none was given."""
    qualified_arn: str
    route: Route[Any] | None
    """None: it cannot be run now, see ``refused``."""
    refused: LambdaError | None
    """Why an invocation would be refused before it reached an environment: a version or alias that is missing, a function that failed."""
    reserved: int | None
    """Reserved concurrency."""
    terms: Terms
    on_success: str
    """Destination ARN, or empty."""
    on_failure: str
    dead_letter: str


class Index(Protocol):
    """The index of the hot path; see kappa_gateway.hot.index."""

    def cached(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Any] | None: ...
    async def find(self, caller: Caller, name: str, qualifier: str | None, /) -> Route[Any]: ...
    def get(self, key: Key, /) -> Resource | None: ...


class Targets:
    """See the module."""

    def __init__(self, *, index: Index, store: ResourceStore) -> None:
        self._index = index
        self._store = store

    async def find(self, event: Event, /) -> Target:
        """Raises FunctionGone, StoreUnavailable, and ServiceUnavailableException while this gateway does not know the function yet."""
        region, account, name, qualifier = named(event.function_arn)
        key = Key("Function", AccountId(account), Region(region), name)
        caller = Caller(account, region)
        route: Route[Any] | None = None
        refused: LambdaError | None = None
        try:
            route = self._index.cached(caller, name, qualifier) or await self._index.find(caller, name, qualifier)
        except LambdaError as error:
            refused = error
        function = self._index.get(key)
        if not isinstance(function, Function) or function.meta.uid != event.function_uid:
            await self._check_alive(key, event)
            raise ServiceUnavailableException("The function is not known here yet.")
        config = self._index.get(Key("EventInvokeConfig", key.account, key.region, name, qualifier or LATEST))
        if not isinstance(config, EventInvokeConfig) or not belongs(config, function):
            config = None
        dead_letter = function.configuration.dead_letter
        return Target(
            account=account,
            function=name,
            qualifier=qualifier or LATEST,
            qualified_arn=function_arn(account, region, name, qualifier or LATEST),
            route=route,
            refused=refused,
            reserved=function.reserved_concurrency,
            terms=terms_of(config),
            on_success=config.on_success if config else "",
            on_failure=config.on_failure if config else "",
            dead_letter=dead_letter.target_arn if dead_letter else "",
        )

    async def _check_alive(self, key: Key, event: Event) -> None:
        current = await self._store.get(key)
        if not isinstance(current, Function) or current.meta.uid != event.function_uid:
            raise FunctionGone(event.function_arn)


def terms_of(config: EventInvokeConfig | None) -> Terms:
    """The terms of a configuration, with AWS's defaults for what it leaves out."""
    attempts = MAXIMUM_RETRY_ATTEMPTS
    age = MAXIMUM_EVENT_AGE_SECONDS
    if config is not None and config.maximum_retry_attempts is not None:
        attempts = config.maximum_retry_attempts
    if config is not None and config.maximum_event_age_seconds is not None:
        age = config.maximum_event_age_seconds
    return Terms(maximum_retry_attempts=attempts, maximum_event_age_ms=age * 1000)


def named(arn: str) -> tuple[str, str, str, str | None]:
    """Region, account, name and qualifier of a function ARN that the gateway itself has made."""
    found = split_function(arn)
    if found is None or found[0] is None or found[1] is None:
        raise ValueError(f"{arn} is no function ARN")
    return found[0], found[1], found[2], found[3]
