"""``kappa async``: looks after asynchronous events of a running gateway. Parses, asks ``/_kappa/events``, prints."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import quote

import click

from kappa_gateway.cli.client import Client, ClientError

ENDPOINT = click.option(
    "--endpoint-url",
    envvar=["KAPPA_ENDPOINT", "AWS_ENDPOINT_URL_LAMBDA"],
    default="http://127.0.0.1:9000",
    show_default=True,
    help="The gateway to talk to.",
)
OUTPUT = click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
EVENT = click.option("--id", "event_id", default="", help="Only this event.")


@click.group("async")
def events() -> None:
    """Asynchronous events: what waits, and what was given up (dead letters)."""


@events.command("list")
@click.argument("function", required=False)
@OUTPUT
@ENDPOINT
def list_(function: str | None, output: str, endpoint_url: str) -> None:
    """List the functions with events, or with FUNCTION its dead letters."""
    columns: tuple[str, ...]
    head: tuple[str, ...]
    if function is None:
        found = _ask(endpoint_url, "GET", "")["Functions"]
        columns = ("FunctionName", "Waiting", "OldestAgeSeconds", "Dead", "Done", "GivenUp")
        head = ("FUNCTION", "WAITING", "OLDEST (s)", "DEAD", "DONE", "GIVEN UP")
    else:
        found = list(_dead_letters(endpoint_url, function))
        columns = ("EventId", "Enqueued", "GivenUp", "Reason", "Detail")
        head = ("EVENT", "ENQUEUED", "GIVEN UP", "REASON", "DETAIL")
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    times = ("Enqueued", "GivenUp") if function else ()
    _table([head, *(tuple(_cell(row[name], time=name in times) for name in columns) for row in found)])


@events.command()
@click.argument("event_id")
@ENDPOINT
def show(event_id: str, endpoint_url: str) -> None:
    """Show one event that waits or was given up, with its payload."""
    found = _ask(endpoint_url, "GET", f"/id/{quote(event_id, safe='')}")
    payload = base64.b64decode(found.pop("Payload"))
    try:
        found["Payload"] = json.loads(payload)
    except ValueError:
        found["Payload"] = payload.decode("utf-8", "replace")
    click.echo(json.dumps(found, indent=2))


@events.command()
@click.argument("function")
@EVENT
@ENDPOINT
def redrive(function: str, event_id: str, endpoint_url: str) -> None:
    """Have the dead letters of FUNCTION run again, as if they had just been sent."""
    count = _ask(endpoint_url, "POST", f"/of/{quote(function, safe='')}/redrive", id=event_id)["Events"]
    click.echo("1 event waits again" if count == 1 else f"{count} events wait again")


@events.command()
@click.argument("function")
@EVENT
@click.option("--waiting", is_flag=True, help="Drop what waits for the function instead of its dead letters.")
@ENDPOINT
def purge(function: str, event_id: str, waiting: bool, endpoint_url: str) -> None:
    """Drop the dead letters of FUNCTION."""
    query = {"id": event_id, "waiting": "true" if waiting else "false"}
    count = _ask(endpoint_url, "POST", f"/of/{quote(function, safe='')}/purge", **query)["Events"]
    click.echo("1 event is gone" if count == 1 else f"{count} events are gone")


def _dead_letters(endpoint_url: str, function: str) -> Iterable[dict[str, Any]]:
    after = ""
    while True:
        page = _ask(endpoint_url, "GET", f"/of/{quote(function, safe='')}", after=after)["DeadLetters"]
        yield from page
        if not page:
            return
        after = page[-1]["EventId"]


def _ask(endpoint_url: str, method: str, path: str, **query: str) -> Any:
    try:
        return Client(endpoint_url).ask(method, f"/_kappa/events{path}", {name: value for name, value in query.items() if value})
    except (OSError, ClientError) as error:
        _fail(str(error))


def _cell(value: Any, *, time: bool) -> str:
    if value is None:
        return "-"
    if time:
        return datetime.fromtimestamp(value).astimezone().isoformat(sep=" ", timespec="seconds")[:19]
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _fail(message: str) -> NoReturn:
    click.echo(f"kappa: {message}", err=True)
    sys.exit(1)
