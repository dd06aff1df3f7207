"""Dispatch: the gateway's end of the link. It matches waiting invocations with the environments that are parked here.

One Dispatcher per gateway. An invocation takes an idle environment of its revision, a provisioned one before one on demand, else the
one that was used last; or it waits in the revision's FIFO for whichever comes first: one that becomes free, one that moves here from
another gateway, one that the scaler starts. A refused invocation (it crossed a move on its way; nothing has run) returns to the head of
its FIFO with its age. What was accepted is never dispatched again: if its environment or the link to it is lost for longer than
RESUME_SECONDS, it is answered as lost.

The dispatcher never decides that there is no capacity. It reports its waiters to the scaler and answers 429 and 503 for exactly the
waiters that the scaler's DENY covers, 503 to what waited longer than the bounded wait, and 503 at once beyond the bounded queue.

The shell numbers its connections and drops a connection's frames once it reported it down. It calls :meth:`Dispatcher.flush` soon
after :attr:`Dispatcher.dirty` became true (at the end of the event loop's turn), :meth:`Dispatcher.on_tick` at
:meth:`Dispatcher.next_deadline`. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from kappa_core.link.effects import CloseLink, Dispatch, Effect, EnvironmentLost, Report, Send, Throttled, Unavailable
from kappa_core.link.frames import RESUME_SECONDS, Collected, Deny, EnvironmentState, FrameType, Hello
from kappa_core.link.news import WANT_AGAIN_SECONDS, demand, may_be_held, next_news, want, wishes
from kappa_core.link.waiting import Environment, Invocation, Queue, Supervisor, arrival, rank

CAPACITY: Final = "capacity: "
"""A DENY whose reason begins so becomes a 503 with the rest as cause; any other reason is a ThrottleReason."""
SUPERSEDED_KEPT: Final = 1000
"""Superseded revisions that are remembered, so that an invocation resolved just before the update finds its way."""

NO_ROOM: Final = "too many invocations are waiting for an environment"
TOO_LATE: Final = "no environment became free or could be started in time"


class Dispatcher:
    """The invocations of one gateway. See the module."""

    __slots__ = (
        "_capacity_wait",
        "_changed",
        "_expiries",
        "_held",
        "_invocations",
        "_leaving",
        "_links",
        "_lost",
        "_queue_bound",
        "_queues",
        "_sequence",
        "_superseded",
        "_supervisors",
        "_waiting",
        "dirty",
    )

    def __init__(self, *, capacity_wait: float = 30.0, queue_bound: int = 10_000) -> None:
        """``capacity_wait`` in seconds; ``queue_bound`` in waiters per revision."""
        self._capacity_wait = capacity_wait
        self._queue_bound = queue_bound
        self._queues: dict[str, Queue] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._links: dict[int, Supervisor] = {}
        self._lost: dict[Supervisor, None] = {}
        """Without a link, something in flight; in the order in which the links broke."""
        self._invocations: dict[str, Invocation] = {}
        self._expiries: deque[Invocation] = deque()
        """What waits, oldest first; some of it no longer does."""
        self._waiting: dict[Queue, None] = {}
        """Queues with waiters."""
        self._changed: dict[Queue, None] = {}
        self._held: dict[Queue, None] = {}
        """Changed so soon after something was said of them that it is said later."""
        self._superseded: dict[str, None] = {}
        self._sequence = 0
        self._leaving = False
        self.dirty = False
        """Whether ``flush`` has something to say."""

    # -- invocations ---------------------------------------------------------------------------------------------
    def invoke(self, request_id: str, revision: str, function_key: str, now: float) -> list[Effect]:
        """A new invocation. Returns its Dispatch, or Unavailable, or nothing: then it waits."""
        queue = self._queues.get(revision)
        if queue is None:
            queue = self._queues[revision] = Queue(revision, function_key)
        elif queue.successor is not None:
            queue = self._latest(queue)
        elif not queue.function_key:
            queue.function_key = function_key
        invocation = Invocation(request_id, queue, now)
        if queue.idle:
            environment, _ = queue.idle.popitem()
            self._invocations[request_id] = invocation
            return [self._dispatch(invocation, environment)]
        if len(queue.waiters) >= self._queue_bound:
            return [Unavailable(request_id, NO_ROOM)]
        self._invocations[request_id] = invocation
        invocation.covered_by = self._sequence + 1
        self._expiries.append(invocation)
        queue.waiters.append(invocation)
        self._mark(queue)
        return []

    def cancel(self, request_id: str, now: float) -> bool:
        """The client hung up. True if the invocation was still waiting, and is forgotten; what was dispatched goes on."""
        invocation = self._invocations.get(request_id)
        if invocation is None or invocation.environment is not None:
            return False
        self._leave_queue(invocation)
        return True

    def on_result(self, link: int, stream: int, request_id: str, now: float) -> bool:
        """RESULT. True: it is the answer to what was dispatched there. False: nobody waits for it (any more)."""
        invocation = self._invocations.get(request_id)
        if invocation is None or (environment := invocation.environment) is None:
            return False
        if environment.stream != stream or self._links.get(link) is not environment.supervisor:
            return False
        # It was dispatched when it came, or when the environment that it waited for was parked.
        invocation.queue.runs.add(now - max(invocation.arrived, environment.used))
        self._forget(invocation)
        return True

    def is_waiting(self, request_id: str) -> bool:
        """Whether it has been dispatched nowhere, or was refused there."""
        invocation = self._invocations.get(request_id)
        return invocation is not None and invocation.environment is None

    def runs_on(self, link: int, stream: int, request_id: str) -> bool:
        """Whether this request is in flight on that environment: what else it sends for it (DATA) is then to be taken."""
        invocation = self._invocations.get(request_id)
        if invocation is None or (environment := invocation.environment) is None:
            return False
        return environment.stream == stream and self._links.get(link) is environment.supervisor

    def on_refused(self, link: int, stream: int, request_id: str, now: float) -> list[Effect]:
        """REFUSED: nothing has run. The invocation returns to the head of its FIFO."""
        if not self.runs_on(link, stream, request_id):
            return []
        return self._requeue(self._invocations[request_id])

    # -- links ---------------------------------------------------------------------------------------------------
    def on_hello(self, link: int, hello: Hello, now: float) -> list[Effect]:
        """HELLO: a supervisor's connection is usable. Settles what was in flight on an earlier one."""
        supervisor = self._supervisors.get(hello.supervisor_id)
        effects: list[Effect] = []
        if supervisor is None:
            supervisor = self._supervisors[hello.supervisor_id] = Supervisor(hello.supervisor_id)
        elif hello.dial < supervisor.dial:
            # Late, perhaps after the end of the later one: what it says of invocations is older than they are.
            return [CloseLink(link, "an earlier connection than the last one")]
        elif supervisor.link is not None:
            effects.append(CloseLink(supervisor.link, "replaced by a later connection"))
            self._unlink(supervisor)
        self._lost.pop(supervisor, None)
        supervisor.link, supervisor.dial = link, hello.dial
        self._links[link] = supervisor
        if hello.revision:
            self._join(supervisor, hello.revision)
            effects += self._settle(supervisor, hello.environments, now)
        return effects + self._greet(supervisor, now)

    def on_assigned(self, link: int, revision: str, now: float) -> list[Effect]:
        """The spare behind this link was made the supervisor of a revision."""
        supervisor = self._links.get(link)
        if supervisor is None or supervisor.queue is not None:
            return []
        self._join(supervisor, revision)
        return self._greet(supervisor, now)

    def on_link_down(self, link: int, now: float) -> list[Effect]:
        """The connection broke or is dead. What is in flight there has RESUME_SECONDS to be resumed."""
        supervisor = self._links.get(link)
        if supervisor is None:
            return []
        self._unlink(supervisor)
        supervisor.lost_at = now
        if self._in_flight_on(supervisor):
            self._lost[supervisor] = None
        else:
            del self._supervisors[supervisor.name]
        return []

    # -- environments --------------------------------------------------------------------------------------------
    def on_environment(self, link: int, stream: int, environment_id: str, now: float) -> list[Effect]:
        """ENVIRONMENT: there is a new one behind this link (or it is told again)."""
        supervisor = self._links.get(link)
        if supervisor is not None and supervisor.queue is not None and stream not in supervisor.environments:
            supervisor.environments[stream] = Environment(supervisor, stream, environment_id, supervisor.queue)
        return []

    def on_parked(self, link: int, stream: int, epoch: int, idle_ms: int, now: float) -> list[Effect]:
        """PARKED: the environment is idle and this gateway's alone."""
        environment = self._environment(link, stream)
        if environment is None:
            return []
        return self._park(environment, epoch, now - idle_ms / 1000)

    def on_unparked(self, link: int, stream: int, now: float) -> list[Effect]:
        """UNPARKED: it has moved. What was dispatched to it meanwhile will be refused."""
        environment = self._environment(link, stream)
        if environment is not None:
            environment.running = None
            self._take_idle(environment)
        return []

    def on_draining(self, link: int, stream: int, now: float) -> list[Effect]:
        """DRAINING: nothing new runs on it; what runs, ends there."""
        environment = self._environment(link, stream)
        if environment is not None:
            self._take_idle(environment)
        return []

    def on_gone(self, link: int, stream: int, request_id: str, reason: str, now: float) -> list[Effect]:
        """GONE: the environment has ended, and with it the request it names. Another one dispatched to it will be refused."""
        environment = self._environment(link, stream)
        if environment is None:
            return []
        environment.running = None
        self._take_idle(environment)
        lost = self._invocations.get(request_id) if self.runs_on(link, stream, request_id) else None
        del environment.supervisor.environments[stream]
        if lost is None:
            return []
        self._forget(lost)
        return [EnvironmentLost(request_id, reason)]

    # -- the scaler ----------------------------------------------------------------------------------------------
    def on_deny(self, deny: Deny, now: float) -> list[Effect]:
        """DENY: answers the waiters that the denied DEMAND counted and that still wait, the youngest first."""
        queue = self._queues.get(deny.revision)
        if queue is None:
            return []
        covered = [waiter for waiter in queue.waiters if waiter.covered_by <= deny.sequence]
        denied = dict.fromkeys(reversed(covered[max(0, len(covered) - deny.count) :]))
        queue.waiters = deque(waiter for waiter in queue.waiters if waiter not in denied)
        self._mark(queue)
        effects: list[Effect] = []
        for waiter in denied:
            del self._invocations[waiter.request_id]
            if deny.reason.startswith(CAPACITY):
                effects.append(Unavailable(waiter.request_id, deny.reason.removeprefix(CAPACITY)))
            else:
                effects.append(Throttled(waiter.request_id, deny.reason))
        return effects

    def collect(self, function_key: str, number: int) -> Collected:
        """The answer to COLLECT, exact at this instant. An empty function key collects every function."""
        busy: list[tuple[str, int]] = []
        idle: list[tuple[str, int]] = []
        waiting: dict[str, int] = {}
        for queue in self._queues.values():
            if function_key and queue.function_key and queue.function_key != function_key:
                continue  # one that was never invoked here has no key yet: the scaler knows whose environments these are
            for invocation in queue.running.values():
                environment = invocation.environment
                if environment is not None and environment.running is invocation:
                    busy.append((environment.environment_id, invocation.epoch))
            idle += ((environment.environment_id, environment.epoch) for environment in queue.idle)
            if queue.waiters:
                waiting[queue.revision] = len(queue.waiters)
        return Collected(function_key, number, busy, idle, waiting)

    def on_scaler_changed(self) -> None:
        """Another gateway holds the scaler now, or the link to it is new: everything is to be reported again."""
        for queue in self._queues.values():
            if queue.waiters or queue.running or queue.told:
                queue.told = -1
                self._mark(queue)

    def flush(self, now: float, *, hold: bool = True) -> list[Effect]:
        """What has changed since the last time: DEMAND for the scaler, WANT and ENOUGH for supervisors. With ``hold`` a queue that
        moves all the time is spoken of from time to time."""
        effects: list[Effect] = []
        changed, self._changed, self.dirty = self._changed, {}, False
        if not hold:
            changed |= self._held
        for queue in changed:
            if hold and may_be_held(queue, now):
                self._held[queue] = None
                continue
            self._held.pop(queue, None)
            said: list[Effect] = []
            if queue.waiters or queue.told:
                self._sequence += 1
                queue.told = len(queue.waiters)
                said.append(Report(demand(queue, self._sequence, now)))
            said += wishes(queue, now)
            if said:
                queue.spoke_at = now
                effects += said
            self._drop_unused(queue)
        return effects

    # -- updates and leaving -------------------------------------------------------------------------------------
    def on_superseded(self, revision: str, successor: str, function_key: str, now: float) -> list[Effect]:
        """A new revision serves from now on. Who waits for the old one waits for the new one, in order; what runs ends there."""
        if revision == successor:
            return []
        old = self._queue(revision, function_key)
        new = self._queue(successor, function_key)
        new.successor, old.successor = None, successor
        self._superseded.pop(successor, None)
        self._superseded.pop(revision, None)
        self._superseded[revision] = None
        if len(self._superseded) > SUPERSEDED_KEPT:
            forgotten = next(iter(self._superseded))
            del self._superseded[forgotten]
            self._mark(self._queues[forgotten])
        if not old.waiters:
            return []
        for waiter in old.waiters:
            waiter.queue = new
            waiter.covered_by = self._sequence + 1
        new.waiters = deque(sorted((*old.waiters, *new.waiters), key=arrival))
        old.waiters.clear()
        self._mark(old)
        self._mark(new)
        effects: list[Effect] = []
        while new.idle and new.waiters:
            environment, _ = new.idle.popitem()
            effects.append(self._dispatch(self._next_waiter(new), environment))
        return effects

    def leave(self, now: float) -> list[Effect]:
        """This gateway is draining: supervisors park elsewhere, what is here ends here."""
        self._leaving = True
        return [Send(link, FrameType.LEAVING) for link in self._links]

    # -- time ----------------------------------------------------------------------------------------------------
    def on_tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for supervisor in list(self._lost):
            if supervisor.lost_at + RESUME_SECONDS > now:
                break
            del self._lost[supervisor]
            del self._supervisors[supervisor.name]
            for invocation in self._in_flight_on(supervisor):
                self._forget(invocation)
                cause = "the connection to its environment was lost"
                effects.append(EnvironmentLost(invocation.request_id, cause, supervisor.name, now - invocation.arrived))
        while (oldest := self._oldest()) is not None and oldest.arrived + self._capacity_wait <= now:
            self._leave_queue(oldest)
            effects.append(Unavailable(oldest.request_id, TOO_LATE))
        for queue in self._waiting:
            if queue.supervisors and queue.asked_at + WANT_AGAIN_SECONDS <= now:
                self._mark(queue)
        for queue in self._held:
            if next_news(queue) <= now:
                self._mark(queue)
        return effects

    def next_deadline(self) -> float | None:
        """When ``on_tick`` has something to do, None for never."""
        if not self._waiting and not self._lost and not self._expiries and not self._held:
            return None
        deadlines = [next_news(queue) for queue in self._held if queue not in self._changed]
        deadlines += [
            queue.asked_at + WANT_AGAIN_SECONDS
            for queue in self._waiting
            if queue.supervisors and queue not in self._changed and queue not in self._held  # those are the next flush's
        ]
        for supervisor in self._lost:
            deadlines.append(supervisor.lost_at + RESUME_SECONDS)
            break
        if (oldest := self._oldest()) is not None:
            deadlines.append(oldest.arrived + self._capacity_wait)
        return min(deadlines, default=None)

    # -- what is known, for metrics and the readiness of the gateway -----------------------------------------------
    def in_flight(self) -> int:
        return sum(len(queue.running) for queue in self._queues.values())

    def waiting(self) -> int:
        return sum(len(queue.waiters) for queue in self._waiting)

    def idle(self, revision: str) -> int:
        queue = self._queues.get(revision)
        return 0 if queue is None else len(queue.idle)

    # -- decisions -----------------------------------------------------------------------------------------------
    def _environment(self, link: int, stream: int) -> Environment | None:
        supervisor = self._links.get(link)
        return None if supervisor is None else supervisor.environments.get(stream)

    def _dispatch(self, invocation: Invocation, environment: Environment) -> Dispatch:
        link = environment.supervisor.link
        assert link is not None, "only what is linked is idle here"
        environment.running = invocation
        invocation.environment = environment
        invocation.epoch = environment.epoch
        invocation.queue.running[invocation.request_id] = invocation
        return Dispatch(link, environment.stream, environment.epoch, invocation.request_id)

    def _park(self, environment: Environment, epoch: int, used: float) -> list[Effect]:
        environment.epoch, environment.used, environment.running = epoch, used, None
        queue = environment.queue
        queue.came += 1
        if queue.waiters:
            return [self._dispatch(self._next_waiter(queue), environment)]
        idle = queue.idle
        if idle and rank(next(reversed(idle))) > rank(environment):
            queue.idle = dict.fromkeys(sorted((*idle, environment), key=rank))
        else:
            idle[environment] = None
        return []

    def _next_waiter(self, queue: Queue) -> Invocation:
        invocation = queue.waiters.popleft()
        self._mark(queue)
        return invocation

    def _requeue(self, invocation: Invocation) -> list[Effect]:
        environment = invocation.environment
        if environment is not None and environment.running is invocation:
            environment.running = None
        del invocation.queue.running[invocation.request_id]
        invocation.environment = None
        queue = invocation.queue = self._latest(invocation.queue)
        if queue.idle:
            return [self._dispatch(invocation, queue.idle.popitem()[0])]
        # A denial that is under way may rest on this very invocation having been in flight; it must not answer it.
        invocation.covered_by = self._sequence + 1
        behind = 0
        while behind < len(queue.waiters) and queue.waiters[behind].arrived < invocation.arrived:
            behind += 1
        queue.waiters.insert(behind, invocation)
        self._expiries.appendleft(invocation)
        self._mark(queue)
        return []

    def _settle(self, supervisor: Supervisor, states: list[EnvironmentState], now: float) -> list[Effect]:
        """Bring what is known of a supervisor's environments in line with its HELLO."""
        queue = supervisor.queue
        assert queue is not None, "settled after it joined"
        in_flight = self._in_flight_on(supervisor)
        known = supervisor.environments
        supervisor.environments = {}
        for state in states:
            if state.state == "gone":
                continue
            kept = known.get(state.stream) or Environment(supervisor, state.stream, state.environment_id, queue)
            kept.running = None
            supervisor.environments[state.stream] = kept
        by_stream = {state.stream: state for state in states}
        effects: list[Effect] = []
        for invocation in in_flight:
            environment = invocation.environment
            assert environment is not None, "what is in flight is somewhere"
            told = by_stream.get(environment.stream)
            if told is not None and told.request_id == invocation.request_id:
                if told.state in {"busy", "draining"}:
                    environment.running = invocation
            elif told is not None and told.state != "gone" and invocation.epoch > told.accepted:
                effects += self._requeue(invocation)
            else:
                self._forget(invocation)
                effects.append(
                    EnvironmentLost(invocation.request_id, "the result was lost with the connection to its environment")
                )
        for state in states:
            if state.parked_here:
                environment = supervisor.environments[state.stream]
                effects += self._park(environment, state.epoch, environment.used or now)
        return effects

    def _in_flight_on(self, supervisor: Supervisor) -> list[Invocation]:
        if supervisor.queue is None:
            return []
        return [
            invocation
            for invocation in supervisor.queue.running.values()
            if invocation.environment is not None and invocation.environment.supervisor is supervisor
        ]

    def _join(self, supervisor: Supervisor, revision: str) -> None:
        queue = self._queue(revision, "")
        supervisor.queue = queue
        queue.supervisors[supervisor] = None

    def _greet(self, supervisor: Supervisor, now: float) -> list[Effect]:
        assert supervisor.link is not None, "greeted when linked"
        effects: list[Effect] = []
        if self._leaving:
            effects.append(Send(supervisor.link, FrameType.LEAVING))
        if supervisor.queue is not None and supervisor.queue.asked:
            effects += want(supervisor, now)
        return effects

    def _unlink(self, supervisor: Supervisor) -> None:
        assert supervisor.link is not None, "unlinked once"
        del self._links[supervisor.link]
        supervisor.link = None
        for environment in supervisor.environments.values():
            environment.queue.idle.pop(environment, None)
        if supervisor.queue is not None:
            supervisor.queue.supervisors.pop(supervisor, None)
            self._mark(supervisor.queue)

    def _take_idle(self, environment: Environment) -> None:
        environment.queue.idle.pop(environment, None)

    def _forget(self, invocation: Invocation) -> None:
        """It has its answer, or will not get one."""
        del self._invocations[invocation.request_id]
        del invocation.queue.running[invocation.request_id]
        environment = invocation.environment
        if environment is not None and environment.running is invocation:
            environment.running = None

    def _leave_queue(self, waiter: Invocation) -> None:
        del self._invocations[waiter.request_id]
        waiter.queue.waiters.remove(waiter)
        self._mark(waiter.queue)

    def _latest(self, queue: Queue) -> Queue:
        while queue.successor is not None:
            queue = self._queue(queue.successor, queue.function_key)
        return queue

    def _queue(self, revision: str, function_key: str) -> Queue:
        queue = self._queues.get(revision)
        if queue is None:
            queue = self._queues[revision] = Queue(revision, function_key)
        return queue

    def _mark(self, queue: Queue) -> None:
        self._changed[queue] = None
        if queue.waiters:
            self._waiting[queue] = None
        else:
            self._waiting.pop(queue, None)
        self.dirty = True

    def _oldest(self) -> Invocation | None:
        expiries = self._expiries
        while expiries:
            first = expiries[0]
            if first.environment is None and self._invocations.get(first.request_id) is first:
                return first
            expiries.popleft()
        return None

    def _drop_unused(self, queue: Queue) -> None:
        if queue.waiters or queue.running or queue.supervisors or queue.told or queue.asked or queue.revision in self._superseded:
            return
        if self._queues.get(queue.revision) is queue:
            del self._queues[queue.revision]
