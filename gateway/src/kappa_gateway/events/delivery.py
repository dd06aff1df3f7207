"""Destinations and dead-letter queues: sends what :mod:`kappa_core.rules.destination_record` has written to SQS, SNS, EventBridge, S3,
or to another function.

botocore does the work, each call on a thread of its own that nobody waits for when the gateway stops, and is imported at the first
delivery only. It talks to the endpoint that is configured for the service and with the keys of :class:`DeliverySettings`, never to AWS
itself by accident and never with the credentials of whoever started the gateway. Another function is reached through the queue of this
gateway, under a key that makes a repeated delivery the same event. When to try again is the worker's business.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar
from uuid import NAMESPACE_URL, uuid4, uuid5

import msgspec

from kappa_core.errors import LambdaError
from kappa_core.ports.queue import Event
from kappa_core.rules.destination_record import Ending, dead_letter_attributes, eventbridge_entry, record, s3_key
from kappa_core.rules.lineage import is_over
from kappa_gateway.events.progress import Delivery
from kappa_gateway.events.targets import named
from kappa_gateway.hot.path import Caller, Router

T = TypeVar("T")

AT_ONCE: Final = 8
"""Calls under way at the same time; the others wait."""
_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 10


class DeliveryError(Exception):
    """It was not delivered. ``permanent``: another attempt is of no use."""

    def __init__(self, text: str, *, permanent: bool) -> None:
        super().__init__(text)
        self.permanent = permanent


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the services are and with which keys Kappa itself sends to them."""

    endpoint: str | None = None
    """Of every service that has none of its own."""
    endpoints: Mapping[str, str] = {}
    """By service, as in KAPPA_ENDPOINT_URL_<SERVICE>: ``sqs``, ``sns``, ``eventbridge``, ``s3``."""
    access_key_id: str = "test"
    secret_access_key: str = "test"  # noqa: S105 - what local stand-ins accept


class Accepts(Protocol):
    """See kappa_gateway.events.intake."""

    async def accept(
        self, *, request_id: str, function_key: str, function_arn: str, trace_id: str, payload: bytes, dedupe: str = ""
    ) -> None: ...


class AwsDelivery:
    """See the module. ``functions`` finds a function that is a destination."""

    def __init__(self, settings: DeliverySettings, *, functions: Router, intake: Accepts) -> None:
        self._settings = settings
        self._functions = functions
        self._intake = intake
        self._clients: dict[tuple[str, str], Any] = {}
        self._queue_urls: dict[str, str] = {}
        self._lock = threading.Lock()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._by_service: dict[str, Callable[[Delivery, Ending, Event], Awaitable[None]]] = {
            "sqs": self._to_sqs,
            "sns": self._to_sns,
            "events": self._to_eventbridge,
            "s3": self._to_s3,
            "lambda": self._to_function,
        }

    async def deliver(self, delivery: Delivery, ending: Ending, event: Event, /) -> None:
        """Raises DeliveryError."""
        tokens = delivery.arn.split(":", 5)
        send = self._by_service.get(tokens[2]) if len(tokens) == 6 else None
        if send is None:
            raise DeliveryError("no destination of this kind can be delivered to", permanent=True)
        await send(delivery, ending, event)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    # -- one service each ------------------------------------------------------------------------------------------
    async def _to_sqs(self, delivery: Delivery, ending: Ending, event: Event) -> None:
        _, _, _, region, account, name = delivery.arn.split(":", 5)
        _refuse_fifo(name)

        def send(client: Any) -> None:
            url = self._queue_urls.get(delivery.arn)
            if url is None:
                url = self._queue_urls[delivery.arn] = client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)[
                    "QueueUrl"
                ]
            client.send_message(QueueUrl=url, **_message(delivery, ending, event, body="MessageBody"))

        await self._call("sqs", region, send)

    async def _to_sns(self, delivery: Delivery, ending: Ending, event: Event) -> None:
        _, _, _, region, _, name = delivery.arn.split(":", 5)
        _refuse_fifo(name)

        def send(client: Any) -> None:
            client.publish(TopicArn=delivery.arn, **_message(delivery, ending, event, body="Message"))

        await self._call("sns", region, send)

    async def _to_eventbridge(self, delivery: Delivery, ending: Ending, event: Event) -> None:
        entry = eventbridge_entry(ending, record=record(ending, payload=event.payload), bus_arn=delivery.arn)

        def send(client: Any) -> None:
            answer = client.put_events(Entries=[entry])
            if answer.get("FailedEntryCount"):
                refused = answer["Entries"][0]
                raise DeliveryError(f"{refused.get('ErrorCode')}: {refused.get('ErrorMessage')}", permanent=False)

        await self._call("events", delivery.arn.split(":", 5)[3], send)

    async def _to_s3(self, delivery: Delivery, ending: Ending, event: Event) -> None:
        region, _, function, _ = named(event.function_arn)
        # Made of the request id, so that a repeated delivery writes the same object again.
        key = s3_key(ending, function_name=function, unique=str(uuid5(NAMESPACE_URL, ending.event_id)))
        body = record(ending, payload=event.payload)

        def send(client: Any) -> None:
            client.put_object(Bucket=delivery.arn.split(":", 5)[5], Key=key, Body=body, ContentType="application/json")

        await self._call("s3", region, send)

    async def _to_function(self, delivery: Delivery, ending: Ending, event: Event) -> None:
        region, account, name, qualifier = named(delivery.arn)
        if ending.condition == "RecursiveInvocation" and is_over(event.trace_id):
            raise DeliveryError("the chain of invocations was stopped, and a function told of it, before", permanent=True)
        try:
            route = await self._functions.find(Caller(account, region), name, qualifier)
            await self._intake.accept(
                request_id=str(uuid4()),
                function_key=route.function_key,
                function_arn=route.function_arn,
                trace_id=event.trace_id,
                payload=record(ending, payload=event.payload),
                dedupe=ending.event_id,
            )
        except LambdaError as error:
            raise DeliveryError(f"{error.code}: {error.message}", permanent=error.status == 413) from error

    # -- botocore --------------------------------------------------------------------------------------------------
    async def _call(self, service: str, region: str, send: Callable[[Any], None]) -> None:
        def work() -> None:
            # Here and not at the top of the file: see the module.
            from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError  # noqa: PLC0415

            try:
                send(self._client(service, region))
            except ClientError as error:
                code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
                raise DeliveryError(f"{code}: {message}", permanent=False) from error
            except ParamValidationError as error:
                raise DeliveryError(" ".join(str(error).split()), permanent=True) from error
            except BotoCoreError as error:
                raise DeliveryError(str(error), permanent=False) from error

        async with self._at_once:
            await _on_thread(work, name=f"kappa-deliver-{service}")

    def _client(self, service: str, region: str) -> Any:
        from botocore.config import Config  # noqa: PLC0415 - see the module
        from botocore.session import Session  # noqa: PLC0415

        with self._lock:
            client = self._clients.get((service, region))
            if client is None:
                unset = (None, None, None, None)
                session = Session(session_vars={"profile": unset, "config_file": unset, "credentials_file": unset})
                client = self._clients[service, region] = session.create_client(
                    service,
                    region_name=region,
                    endpoint_url=self._endpoint(service),
                    aws_access_key_id=self._settings.access_key_id,
                    aws_secret_access_key=self._settings.secret_access_key,
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_READ_SECONDS,
                        retries={"total_max_attempts": 1},
                        s3={"addressing_style": "path"},
                    ),
                )
            return client

    def _endpoint(self, service: str) -> str:
        name = "eventbridge" if service == "events" else service
        found = self._settings.endpoints.get(name) or self._settings.endpoints.get(service) or self._settings.endpoint
        if found is None:
            raise DeliveryError(
                f"no endpoint is configured for {service}: set KAPPA_ENDPOINT_URL_{name.upper()} to its URL", permanent=True
            )
        return found


def _message(delivery: Delivery, ending: Ending, event: Event, *, body: str) -> dict[str, Any]:
    """What a queue or topic is sent: a record, or as a dead letter the event itself."""
    if delivery.kind == "destination":
        return {body: record(ending, payload=event.payload).decode()}
    return {body: event.payload.decode(), "MessageAttributes": dead_letter_attributes(ending)}


def _refuse_fifo(name: str) -> None:
    if name.endswith(".fifo"):
        raise DeliveryError("FIFO queues and topics are no destinations", permanent=True)


async def _on_thread(work: Callable[[], T], *, name: str) -> T:
    """Run ``work`` on a thread that does not keep the process alive, as those of an executor do."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return  # whoever waited was cancelled
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error
        else:
            future.set_exception(error)

    def run() -> None:
        result: T | None = None
        raised: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            raised = error
        try:
            loop.call_soon_threadsafe(settle, result, raised)
        except RuntimeError:
            return  # the loop is closed: nobody waits

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
