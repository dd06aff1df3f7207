"""What the API server says about tokens and rights: TokenReview and SubjectAccessReview, each answer remembered for a short time.

Asked by :mod:`.bearer` for who a caller is and by :mod:`.permissions` for what it may do. What is remembered is answered without a
task, so that the invoke path stays synchronous; what is not costs one request, however many callers wait for the same answer, and
no more than a bounded number of requests at once, however many tokens are made up. It refuses to let anybody in while the API
server cannot be asked: that is an error of the platform (500), not of the caller.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from kappa_core.errors import ServiceException
from kappa_crds.api import ApiError
from kappa_gateway.auth.identity import Subject

TOKEN_SECONDS: Final = 60.0
"""An identity is believed for so long, and never beyond its token's own end."""
ACCESS_SECONDS: Final = 10.0
"""A right, granted or not, is believed for so long."""
REFUSED_SECONDS: Final = 10.0
"""A token that is not good is not asked about again for so long."""
REMEMBERED: Final = 4096
"""Answers of each kind; the least recently used go first."""
AT_ONCE: Final = 16
"""Requests to the API server."""

_TOKEN_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
_ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

A = TypeVar("A")


class ReviewApi(Protocol):
    """What this module needs of the API."""

    async def post(self, path: str, body: dict[str, Any], /) -> dict[str, Any]: ...


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to do, in Kubernetes' words."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str
    name: str = ""
    """Empty: no single object."""

    def __str__(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {resource}{f'.{self.group}' if self.group else ''} in namespace {self.namespace}"


class _Claims(msgspec.Struct):
    exp: float = float("inf")


class _Memory(Generic[A]):
    """Answers by key, each until a moment of its own."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, tuple[A, float]] = OrderedDict()

    def get(self, key: Hashable, *, now: float) -> A | None:
        found = self._kept.get(key)
        if found is None:
            return None
        if found[1] <= now:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, answer: A, *, until: float) -> None:
        self._kept[key] = (answer, until)
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)


class NoSubject(msgspec.Struct, frozen=True):
    """The answer about a token that nobody has."""


class Reviews:
    """See the module. ``audiences`` are those of the tokens that are taken; none: the API server's own. ``now`` is Unix seconds."""

    def __init__(
        self,
        api: ReviewApi,
        *,
        audiences: tuple[str, ...] = (),
        now: Callable[[], float] = time.time,
        remembered: int = REMEMBERED,
    ) -> None:
        self._api = api
        self._audiences = audiences
        self._now = now
        self._subjects: _Memory[Subject | NoSubject] = _Memory(remembered)
        self._accesses: _Memory[bool] = _Memory(remembered)
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    # -- who somebody is -------------------------------------------------------------------------------------------
    def known_subject(self, token: str, /) -> Subject | NoSubject | None:
        """Whose token this is, as far as it was asked lately; None: it has to be asked."""
        return self._subjects.get(_digest(token), now=self._now())

    async def subject(self, token: str, /) -> Subject | NoSubject:
        """Whose token this is. Raises ServiceException."""
        known = self.known_subject(token)
        if known is not None:
            return known
        return await self._shared(_digest(token), lambda: self._review_token(token))

    async def _review_token(self, token: str) -> Subject | NoSubject:
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = list(self._audiences)
        status = await self._ask(_TOKEN_REVIEWS, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec})
        now = self._now()
        answer: Subject | NoSubject = NoSubject()
        until = now + REFUSED_SECONDS
        good = status.get("authenticated") is True
        if good and self._audiences:  # an authenticator that knows no audiences answers none of them
            good = not set(self._audiences).isdisjoint(status.get("audiences") or ())
        if good:
            answer = _subject(status.get("user") or {})
            until = min(now + TOKEN_SECONDS, _expiry(token))
        self._subjects.put(_digest(token), answer, until=until)
        return answer

    # -- what somebody may do --------------------------------------------------------------------------------------
    def known_access(self, subject: Subject, attributes: Attributes, /) -> bool | None:
        """Whether the subject may do this, as far as it was asked lately; None: it has to be asked."""
        return self._accesses.get((subject, attributes), now=self._now())

    async def access(self, subject: Subject, attributes: Attributes, /) -> bool:
        """Whether the subject may do this. Raises ServiceException."""
        known = self.known_access(subject, attributes)
        if known is not None:
            return known
        return await self._shared((subject, attributes), lambda: self._review_access(subject, attributes))

    async def _review_access(self, subject: Subject, attributes: Attributes) -> bool:
        wanted = {
            "verb": attributes.verb,
            "group": attributes.group,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "namespace": attributes.namespace,
            "name": attributes.name,
        }
        spec = {
            "user": subject.username,
            "groups": list(subject.groups),
            "uid": subject.uid,
            "extra": {name: list(values) for name, values in subject.extra},
            "resourceAttributes": {name: value for name, value in wanted.items() if value},
        }
        status = await self._ask(
            _ACCESS_REVIEWS, {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        )
        allowed = status.get("allowed") is True
        self._accesses.put((subject, attributes), allowed, until=self._now() + ACCESS_SECONDS)
        return allowed

    # -- asking ----------------------------------------------------------------------------------------------------
    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            async with self._turns:
                answer = await self._api.post(path, body)
        except ApiError as error:
            raise ServiceException(f"Who may do this cannot be found out: {error}") from error
        status: dict[str, Any] = answer.get("status") or {}
        return status

    async def _shared(self, key: Hashable, ask: Callable[[], Awaitable[A]]) -> A:
        """One request for all who wait for the same answer; one that goes away takes it from nobody else."""
        task: asyncio.Task[A] | None = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(_answer(ask), name="review")
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return await asyncio.shield(task)

    def _asked(self, key: Hashable, done: asyncio.Task[Any]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # seen here even if every caller has gone away

    async def close(self) -> None:
        """Give up what is being asked. Idempotent."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(ask: Callable[[], Awaitable[A]]) -> A:
    return await ask()


def _digest(token: str) -> bytes:
    """What tokens are remembered by: a token itself is not kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _subject(user: dict[str, Any]) -> Subject:
    extra = user.get("extra") or {}
    return Subject(
        username=user.get("username", ""),
        groups=tuple(user.get("groups") or ()),
        uid=user.get("uid", ""),
        extra=tuple((name, tuple(values or ())) for name, values in sorted(extra.items())),
    )


def _expiry(token: str) -> float:
    """The end of a JWT (Unix seconds); the API server has just checked it, and opaque tokens have none."""
    parts = token.split(".")
    if len(parts) != 3:
        return float("inf")
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return msgspec.json.decode(payload, type=_Claims).exp
    except (binascii.Error, ValueError):
        return float("inf")
