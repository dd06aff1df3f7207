"""AWS services to deliver to: moto's server (see :mod:`moto_s3`) with clients, and readers of what arrived."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import boto3
import botocore.config

REGION = "us-east-1"
ACCOUNT = "000000000000"
"""moto takes the account from a key of twelve digits."""
PATIENCE_SECONDS = 20.0


class Services:
    """Clients of one moto server; close it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._clients: list[Any] = []
        self.sqs = self._client("sqs")
        self.sns = self._client("sns")
        self.events = self._client("events")
        self.s3 = self._client("s3")

    def _client(self, service: str) -> Any:
        client = boto3.session.Session().client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCOUNT,
            aws_secret_access_key="test",
            config=botocore.config.Config(s3={"addressing_style": "path"}),
        )
        self._clients.append(client)
        return client

    def queue(self, name: str, **attributes: str) -> tuple[str, str]:
        """URL and ARN of a new queue."""
        url = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url, f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"

    def topic(self, name: str) -> tuple[str, str]:
        """URL of a queue that gets what is published, and the ARN of the new topic."""
        url, queue_arn = self.queue(f"{name}-subscriber")
        topic_arn = self.sns.create_topic(Name=name)["TopicArn"]
        self.sns.subscribe(TopicArn=topic_arn, Protocol="sqs", Endpoint=queue_arn, Attributes={"RawMessageDelivery": "false"})
        return url, topic_arn

    def bus(self, name: str) -> tuple[str, str]:
        """URL of a queue that gets every event, and the ARN of the new bus."""
        url, queue_arn = self.queue(f"{name}-target")
        bus_arn = self.events.create_event_bus(Name=name)["EventBusArn"]
        pattern = json.dumps({"source": [{"prefix": ""}]})
        self.events.put_rule(Name="all", EventBusName=name, EventPattern=pattern)
        self.events.put_targets(Rule="all", EventBusName=name, Targets=[{"Id": "1", "Arn": queue_arn}])
        return url, bus_arn

    def receive(self, url: str, *, count: int = 1) -> list[dict[str, Any]]:
        """The next messages of a queue, waited for."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=1
            )
            for message in answer.get("Messages", ()):
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
            return len(found) >= count

        until(enough)
        return found

    def close(self) -> None:
        for client in self._clients:
            client.close()


def until(true: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is true. Raises AssertionError when that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
