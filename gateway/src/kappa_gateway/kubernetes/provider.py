"""DeploymentProvider: the EnvironmentProvider of a cluster. One pod per environment, one Deployment per revision, ``replicas`` its lever.

Lives for one term of the scaler, at the gateway that holds it. The scaler orders environments; those that find no free pod make this
raise the ``replicas`` of their revision's Deployment (one patch for a burst), and as pods greet on the link they are given what waits
(ASSIGN, START). When an environment is gone its pod is surplus, and ``replicas`` falls again. What to do with which pod is decided by
:mod:`kappa_gateway.kubernetes.replicas`; this is the shell: informers of Deployments and Pods in, patches out. Every write is a compare
and swap and is refused once the term is over, so two holders cannot undo each other's work.

A new term finds what there is: linked pods say what they run; a pod that may run something and is not linked here counts until it
greets or is known to have ended. It refuses to decide how many environments there are, to touch a Deployment's shape, which is the
operator's, and to scale anything down when it closes: another gateway goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

from kappa_core.link.capacity import Known
from kappa_core.ports.environments import ProviderError
from kappa_core.resources import LATEST
from kappa_core.spec import VersionSpec
from kappa_crds import labels, names
from kappa_crds.api import ApiError, Conflict, Forbidden, Invalid, NotFound, Object, WatchedApi, api_path
from kappa_crds.watching import ChangeType, Informer
from kappa_gateway.kubernetes import replicas
from kappa_gateway.kubernetes.fleet import CONDEMNED_SECONDS, LINGER_SECONDS, Ceiling, Fleet, Pod, Revision
from kappa_gateway.kubernetes.pods import DELETION_COST, DeploymentState, deployment_state, pod_state, trimmed
from kappa_gateway.links.server import PodIdentity

logger = logging.getLogger("kappa.provider")

SYNC_SECONDS: Final = 10.0
"""For the first lists of a term."""
DEPLOYMENT_SECONDS: Final = 20.0
"""How long the operator may take to make the Deployment of a revision."""
ENDED_SECONDS: Final = 3.0
"""The kubelet's word on a container counts once its link has been down for so long: before, it may be about the one before it."""
INHERITED_SECONDS: Final = 5.0
"""Within this the kubelet has told of every container that was started before this term."""
WRITE_SECONDS: Final = 4.0
RETRY_SECONDS: Final = 0.5
_JUST_AFTER_SECONDS: Final = 0.01

OnEnded = Callable[[str, list[str], str], None]
"""Takes a supervisor's id (or nothing), environments that are gone with it or will never be there, and why."""
OnCause = Callable[[str, str], None]
"""Takes a revision and why its pods do not come up yet; empty: they do."""
Locate = Callable[[VersionSpec], Awaitable[tuple[str, str] | None]]
"""Finds the namespace and name of the FunctionVersion object of a published version."""
Bring = Callable[[VersionSpec], Awaitable[bytes]]
"""Reads the archive of a version's code if it may come along with ASSIGN; otherwise, or if it cannot be read now, nothing."""


class PodLinks(Protocol):
    """The links of supervisors, as far as this provider needs them; InvocationPort has them."""

    def supervisors(self) -> list[str]: ...

    def environments_of(self, supervisor_id: str, /) -> tuple[str, ...] | None: ...

    def assign(self, supervisor_id: str, spec: VersionSpec, /, code: bytes = b"") -> bool: ...

    def start(self, supervisor_id: str, environment_ids: list[str], /) -> bool: ...


class ProviderApi(WatchedApi, Protocol):
    """What this module needs of the API."""

    async def get(self, path: str, /) -> Object: ...

    async def merge_patch(self, path: str, body: Object, /, *, field_manager: str) -> Object: ...

    async def json_patch(self, path: str, operations: list[Object], /, *, field_manager: str) -> Object: ...

    async def delete(self, path: str, *, uid: str | None = None) -> Object: ...


class DeploymentProvider:
    """See the module. :meth:`open`, then :meth:`inherit`, then :meth:`begin`."""

    def __init__(
        self,
        api: ProviderApi,
        *,
        links: PodLinks,
        identity: Callable[[str], PodIdentity | None],
        on_ended: OnEnded,
        on_cause: OnCause,
        locate: Locate,
        ceiling: Ceiling,
        bring: Bring,
        namespaces: Iterable[str] = (),
        holds: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``identity`` knows whom the link's listener has vouched for, by UID. Without ``namespaces`` all are watched. ``holds`` says
        whether this term still goes on."""
        self._api = api
        self._links = links
        self._identity = identity
        self._on_ended = on_ended
        self._on_cause = on_cause
        self._locate = locate
        self._bring = bring
        self._holds = holds
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._fleet = Fleet(ceiling)
        self._informers: list[Informer] = []
        for namespace in tuple(namespaces) or ("",):
            for group, plural, change in (
                ("apps/v1", "deployments", self._deployment_changed),
                ("v1", "pods", self._pod_changed),
            ):
                path = api_path(group, plural, namespace=namespace)
                self._informers.append(Informer(api, path, on_change=change, label_selector=labels.REVISION_HASH, trim=trimmed))
        self._tasks: set[asyncio.Task[None]] = set()
        self._acting = False
        self._closed = False

    async def open(self) -> None:
        """Learn what there is. Raises ProviderError where the API server does not say so in time."""
        for informer in self._informers:
            self._run(informer.run())
        try:
            async with asyncio.timeout(SYNC_SECONDS):
                for informer in self._informers:
                    await informer.synced.wait()
        except TimeoutError:
            raise ProviderError("The API server has not listed Deployments and Pods in time.") from None

    @property
    def has_pods(self) -> bool:
        """Whether there may be environments from before."""
        return bool(self._fleet.pods)

    def inherit(self) -> list[Known]:
        """What may exist besides what is linked here, for the scaler to count. Take over and :meth:`begin` in the same breath."""
        for _, pod in self._fleet.pods.values():
            pod.inherited = pod.state is not None and bool(pod.state.node) and not pod.state.ended
        for supervisor_id in self._links.supervisors():
            self.supervisor_up(supervisor_id)
        return [Known(pod.placeholder, revision.name, "draining") for revision, pod in self._fleet.pods.values() if pod.inherited]

    def begin(self) -> None:
        """From now on act. What was inherited and turns out to run nothing is surplus."""
        self._acting = True
        self._run(self._settle_inheritance())
        for revision in self._fleet.revisions.values():
            self._wake(revision)

    # -- EnvironmentProvider ------------------------------------------------------------------------------------------
    async def start(self, spec: VersionSpec, environment_ids: list[str], /) -> None:
        """See the port."""
        if self._closed:
            raise ProviderError("this gateway does not hold the scaler any more")
        revision = self._fleet.revision(spec.revision)
        revision.spec = spec
        room, why = self._fleet.room(spec.function_uid)
        for environment_id in environment_ids[:room]:
            revision.pending[environment_id] = None
        self._pair(revision)
        if revision.pending and not (revision.code or revision.bringing):
            revision.bringing = True
            self._run(self._bring_code(revision, spec))
        self._wake(revision)
        if len(environment_ids) > room:
            if room <= 0:
                raise ProviderError(why)
            self._on_ended("", environment_ids[room:], why)

    async def stop(self, revision: str, environment_ids: list[str], /) -> None:
        """See the port. What has no pod is gone at once; a pod that has one and is not linked is deleted, and gone when that is done."""
        known = self._fleet.revisions.get(revision)
        if known is None:
            return
        waiting = [name for name in environment_ids if name in known.pending]
        self._give_up(known, waiting, known.trouble or "no pod came up for it in time")
        for pod in list(known.pods.values()):
            if not pod.environments.isdisjoint(environment_ids):
                await self._attempt(self._delete(pod))
        self._wake(known)

    async def stop_version(self, revision: str, /) -> None:
        """See the port."""
        known = self._fleet.revisions.get(revision)
        if known is None:
            return
        self._give_up(known, list(known.pending), "its revision was stopped")
        for pod in list(known.pods.values()):
            await self._attempt(self._delete(pod))

    async def close(self) -> None:
        """Do nothing more; nothing is scaled down. Idempotent."""
        self._closed = True
        for revision in self._fleet.revisions.values():
            if revision.timer is not None:
                revision.timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- told by the links --------------------------------------------------------------------------------------------
    def supervisor_up(self, supervisor_id: str) -> None:
        """A pod has greeted, which was vouched for: it runs something, or has room for what waits."""
        uid = supervisor_id.partition(".")[0]
        pod = self._greeted(uid)
        if pod is None or self._closed:
            return
        revision = self._fleet.pods[uid][0]
        if pod.supervisor_id and pod.supervisor_id != supervisor_id:
            # The same pod with another supervisor: its container was started again.
            self._ended(pod, "its container ended")
        pod.supervisor_id, pod.linked, pod.unlinked_at = supervisor_id, True, 0.0
        pod.environments = set(self._links.environments_of(supervisor_id) or ())
        pod.free_at = self._loop.time()
        pod.blamed = True  # whatever ails it later, it has been able to start something
        self._disinherit(pod)
        if revision.trouble:
            revision.trouble = ""
            self._on_cause(revision.name, "")
        self._pair(revision)
        self._wake(revision)

    def supervisor_down(self, supervisor_id: str) -> None:
        """A link is lost; whether its pod has ended is seen by the API."""
        found = self._fleet.of(supervisor_id)
        if found is None:
            return
        revision, pod = found
        pod.linked, pod.unlinked_at = False, self._loop.time()
        self._look(revision, pod)
        self._later(revision, ENDED_SECONDS)

    def environment_gone(self, supervisor_id: str, environment_id: str) -> None:
        """An environment has ended: its pod is free, and soon surplus."""
        found = self._fleet.of(supervisor_id)
        if found is None or environment_id not in found[1].environments:
            return
        revision, pod = found
        pod.environments.discard(environment_id)
        pod.free_at = self._loop.time()
        # In its own time: the scaler is just being told, and may order the next one for it.
        self._loop.call_soon(self._pair, revision)
        self._wake(revision)

    # -- told by the informers ----------------------------------------------------------------------------------------
    def _deployment_changed(self, change: ChangeType, obj: Object) -> None:
        state = deployment_state(obj)
        if not state.revision or self._closed:
            return
        revision = self._fleet.revision(state.revision)
        if change == "DELETED":
            if revision.deployment is not None and revision.deployment.uid == state.uid:
                revision.deployment = None
        elif revision.deployment is None or _newer(state.resource_version, revision.deployment.resource_version):
            revision.deployment = state
            if revision.missing is not None:
                revision.missing.cancel()
                revision.missing = None
        self._wake(revision)

    def _pod_changed(self, change: ChangeType, obj: Object) -> None:
        state = pod_state(obj)
        if not state.revision or self._closed:
            return
        if state.uid not in self._fleet.pods:
            if change == "DELETED":
                return
            self._fleet.add(state.revision, state.namespace, state.name, state.uid)
        revision, pod = self._fleet.pods[state.uid]
        pod.state, pod.gone = state, change == "DELETED"
        self._look(revision, pod)
        self._wake(revision)

    # -- pods ---------------------------------------------------------------------------------------------------------
    def _greeted(self, uid: str) -> Pod | None:
        """Its greeting may be faster than the informer's word of it."""
        if uid in self._fleet.pods:
            return self._fleet.pods[uid][1]
        identity = self._identity(uid)
        return None if identity is None else self._fleet.add(identity.revision, identity.namespace, identity.name, uid)

    def _ended(self, pod: Pod, reason: str) -> None:
        """Whatever ran in it is no more; that is certain."""
        supervisor_id, environments = pod.supervisor_id, sorted(pod.environments)
        pod.supervisor_id, pod.linked = "", False
        pod.environments.clear()
        if supervisor_id:
            self._on_ended(supervisor_id, environments, reason)

    def _disinherit(self, pod: Pod) -> None:
        if pod.inherited:
            pod.inherited = False
            self._on_ended("", [pod.placeholder], "what it ran is known")

    def _look(self, revision: Revision, pod: Pod) -> None:
        """What the API says of a pod: whether what it ran has ended, and whether it comes up at all."""
        state = pod.state
        if pod.linked:
            return
        silent = self._loop.time() - pod.unlinked_at >= ENDED_SECONDS
        if pod.gone:
            self._ended(pod, "its pod was deleted")
            self._disinherit(pod)
            self._fleet.remove(revision, pod)
            return
        if state is None:
            if silent:
                self._run(self._verify(revision, pod))
            return
        if state.ended or (pod.supervisor_id and not state.running and silent):
            self._ended(pod, f"its pod has ended ({state.phase})" if state.ended else "its container ended")
            self._disinherit(pod)
        trouble = state.trouble
        if trouble is None or pod.environments or not revision.pending:
            return
        if not trouble.hopeless:
            self._troubled(revision, trouble.words)
        elif not pod.blamed:
            pod.blamed = True
            self._give_up(revision, list(revision.pending)[:1], trouble.words)

    async def _verify(self, revision: Revision, pod: Pod) -> None:
        """A pod that greeted and was never told of: perhaps it came and went between two lists."""
        try:
            found = await self._api.get(_pod_path(pod))
        except NotFound:
            pod.gone = True
        except ApiError as error:
            logger.warning("%s", error)
        else:
            pod.gone = found["metadata"]["uid"] != pod.uid
        if pod.gone:
            self._look(revision, pod)
            self._wake(revision)
        elif pod.state is None:
            self._later(revision, ENDED_SECONDS)

    def _troubled(self, revision: Revision, words: str) -> None:
        if revision.trouble != words:
            revision.trouble = words
            self._on_cause(revision.name, words)

    def _give_up(self, revision: Revision, environment_ids: list[str], why: str) -> None:
        for environment_id in environment_ids:
            del revision.pending[environment_id]
        if environment_ids:
            self._on_ended("", environment_ids, why)

    def _pair(self, revision: Revision) -> None:
        """Start what waits on pods that are free. Never waits itself: this is the way of a cold start."""
        if not self._acting or self._closed or not revision.pending or revision.spec is None:
            return
        for action in replicas.decide(revision.picture(self._loop.time())):
            if isinstance(action, replicas.Use):
                pod = revision.pods[action.uid]
                running = self._links.environments_of(pod.supervisor_id)
                if running:  # the holder before has started something that was on its way
                    pod.environments = set(running)
                    continue
                environment_id = next(iter(revision.pending))
                if self._links.assign(pod.supervisor_id, revision.spec, revision.code) and self._links.start(
                    pod.supervisor_id, [environment_id]
                ):
                    del revision.pending[environment_id]
                    pod.environments.add(environment_id)
        if not revision.pending:
            revision.code = b""

    async def _bring_code(self, revision: Revision, spec: VersionSpec) -> None:
        """Read the code while the pod comes up. One that greets before it is here fetches it by its link."""
        try:
            code = await self._bring(spec)
        finally:
            revision.bringing = False
        if revision.pending:
            revision.code = code

    # -- replicas -----------------------------------------------------------------------------------------------------
    def _wake(self, revision: Revision) -> None:
        if not self._acting or self._closed:
            return
        revision.again = True
        if revision.worker is None:
            revision.worker = self._run(self._work(revision))

    def _later(self, revision: Revision, seconds: float) -> None:
        """Look again then, or before: what is not due then has it looked at once more."""
        if self._closed:
            return
        at = self._loop.time() + seconds + _JUST_AFTER_SECONDS
        if revision.timer is not None:
            if revision.timer.when() <= at:
                return
            revision.timer.cancel()
        revision.timer = self._loop.call_at(at, self._due, revision)

    def _due(self, revision: Revision) -> None:
        revision.timer = None
        for pod in list(revision.pods.values()):
            self._look(revision, pod)
        self._wake(revision)

    async def _work(self, revision: Revision) -> None:
        try:
            while revision.again:
                revision.again = False
                if not await self._attempt(self._settle(revision)):
                    await asyncio.sleep(RETRY_SECONDS)
                    revision.again = True
        finally:
            revision.worker = None
        self._fleet.drop_unused(revision)

    async def _attempt(self, work: Awaitable[None]) -> bool:
        """False: the API server does not answer, or something else changed the same thing; try again."""
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await work
        except TimeoutError:
            logger.warning("the API server does not answer")
        except NotFound:
            return True  # the informer tells of it
        except Conflict as error:
            logger.debug("again: %s", error)
        except ApiError as error:
            logger.warning("%s", error)
        else:
            return True
        return not self._holds() or self._closed

    async def _settle(self, revision: Revision) -> None:
        self._pair(revision)
        deployment = revision.deployment
        if deployment is None:
            if revision.pending and revision.missing is None and revision.spec is not None:
                revision.missing = self._run(self._await_deployment(revision, revision.spec))
            return
        if deployment.failure and revision.pending:
            self._give_up(revision, list(revision.pending), deployment.failure)
        picture = revision.picture(self._loop.time())
        for action in replicas.decide(picture):
            if not self._holds():
                return
            match action:
                case replicas.Use():
                    revision.again = True
                case replicas.Raise(number):
                    await self._raise(revision, deployment, number)
                case replicas.Lower(number, going):
                    await self._lower(revision, deployment, number, going)
                case replicas.Mark(uid, cost) if uid in revision.pods:
                    await self._mark(revision.pods[uid], cost)
                case replicas.Replace(uid) if uid in revision.pods:
                    await self._delete(revision.pods[uid])
                case replicas.Mark() | replicas.Replace():
                    pass  # it went while another was seen to
        if any(pod.free and not pod.idle for pod in picture.pods):
            self._later(revision, LINGER_SECONDS)
        elif any(pod.condemned for pod in picture.pods):
            self._later(revision, CONDEMNED_SECONDS)

    async def _raise(self, revision: Revision, deployment: DeploymentState, number: int) -> None:
        before = deployment.replicas
        # A Scale with no replicas says nothing of them.
        operations: list[Object] = [
            {"op": "test", "path": "/spec/replicas", "value": before} if before else {"op": "test", "path": "/spec", "value": {}},
            {"op": "add", "path": "/spec/replicas", "value": number},
        ]
        try:
            scale = await self._api.json_patch(_scale_path(deployment), operations, field_manager=names.GATEWAY_MANAGER)
        except Invalid:
            scale = await self._api.get(_scale_path(deployment))
            if _replicas_of(scale) == before:
                raise  # it is not that somebody else was faster
            revision.again = True
        except Forbidden as error:
            self._give_up(revision, list(revision.pending), f"the gateway may not scale its Deployment: {error}")
            return
        self._scaled(revision, deployment, scale)

    async def _lower(self, revision: Revision, deployment: DeploymentState, number: int, going: tuple[str, ...]) -> None:
        now = self._loop.time()
        body = {"metadata": {"resourceVersion": deployment.resource_version}, "spec": {"replicas": number}}
        # Before the patch: nothing may be started on them while it is under way.
        for uid in going:
            revision.pods[uid].condemned_at = now
        try:
            scale = await self._api.merge_patch(_scale_path(deployment), body, field_manager=names.GATEWAY_MANAGER)
        except Conflict:
            for uid in going:
                if uid in revision.pods:
                    revision.pods[uid].condemned_at = None
            scale = await self._api.get(_scale_path(deployment))
            revision.again = True
        self._scaled(revision, deployment, scale)

    def _scaled(self, revision: Revision, deployment: DeploymentState, scale: Object) -> None:
        """What the API server answered is newer than what the informer has told."""
        current = revision.deployment
        version = scale["metadata"]["resourceVersion"]
        if current is not None and current.uid == deployment.uid and _newer(version, current.resource_version):
            number = _replicas_of(scale)
            revision.deployment = DeploymentState(
                current.namespace, current.name, current.uid, version, current.revision, number, current.failure
            )

    async def _mark(self, pod: Pod, cost: int) -> None:
        body = {"metadata": {"uid": pod.uid, "annotations": {DELETION_COST: str(cost)}}}
        await self._api.merge_patch(_pod_path(pod), body, field_manager=names.GATEWAY_MANAGER)

    async def _delete(self, pod: Pod) -> None:
        if self._holds():
            await self._api.delete(_pod_path(pod), uid=pod.uid)

    # -- the rest -----------------------------------------------------------------------------------------------------
    async def _await_deployment(self, revision: Revision, spec: VersionSpec) -> None:
        """Say that a published version is wanted, and wait for the operator to make its Deployment."""
        if spec.version != LATEST:
            found = await self._locate(spec)
            if found is not None:
                namespace, name = found
                path = api_path(names.API_VERSION, names.PLURALS["FunctionVersion"], namespace=namespace, name=name)
                stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
                body = {"metadata": {"annotations": {labels.WANTED: stamp}}}
                with contextlib.suppress(ApiError):  # it is said again with the next attempt to start one
                    await self._api.merge_patch(path, body, field_manager=names.GATEWAY_MANAGER)
        await asyncio.sleep(DEPLOYMENT_SECONDS)
        revision.missing = None
        why = f"the operator has made no Deployment for it within {DEPLOYMENT_SECONDS:g} s"
        self._give_up(revision, list(revision.pending), why)
        self._wake(revision)

    async def _settle_inheritance(self) -> None:
        """What was bound to a node when this term began and never ran holds nobody up."""
        await asyncio.sleep(INHERITED_SECONDS)
        for revision, pod in list(self._fleet.pods.values()):
            if pod.inherited and not pod.linked and (pod.state is None or not pod.state.running):
                self._disinherit(pod)
                self._wake(revision)

    def _run(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _scale_path(deployment: DeploymentState) -> str:
    return api_path("apps/v1", "deployments", namespace=deployment.namespace, name=deployment.name, subresource="scale")


def _replicas_of(scale: Object) -> int:
    return int((scale.get("spec") or {}).get("replicas") or 0)


def _pod_path(pod: Pod) -> str:
    return api_path("v1", "pods", namespace=pod.namespace, name=pod.name)


def _newer(version: str, than: str) -> bool:
    """Comparable by order since KEP-5504."""
    return int(version) >= int(than)
