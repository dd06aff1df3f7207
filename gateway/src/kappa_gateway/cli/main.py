"""``kappa``: the console script. Subcommands that talk to a running gateway do so over HTTP, like any other client.

What a subcommand needs is imported when it runs: ``kappa logs`` must not pay for a web framework.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from kappa_gateway.cli.client import Client, ClientError
from kappa_gateway.cli.cluster import cluster
from kappa_gateway.cli.commands import Commands
from kappa_gateway.cli.crds import crds
from kappa_gateway.cli.events import events

ENDPOINT = click.option(
    "--endpoint-url",
    envvar=["KAPPA_ENDPOINT", "AWS_ENDPOINT_URL_LAMBDA"],
    default="http://127.0.0.1:9000",
    show_default=True,
    help="The gateway to talk to.",
)


def _warn(message: str) -> None:
    click.echo(f"kappa: {message}", err=True)


def _fail(message: str) -> NoReturn:
    click.echo(f"kappa: {message}", err=True)
    sys.exit(1)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kappa-faas", prog_name="kappa")
def main() -> None:
    """AWS Lambda on any Kubernetes cluster, and on a laptop without one."""
    if os.getpid() == 1:
        # The kernel drops a signal that the first process of a container has no handler for: one that is told to end while it starts
        # would go on until SIGKILL. What has begun to serve puts its own in this place.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


@main.command()
@click.option("--host", default=None, help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, default=None, help="Port of the Lambda API (9000); 0 takes a free one.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), default=None, help="Where everything is kept (.kappa)."
)
@click.option("--no-auth", is_flag=True, default=None, help="Allow another address than loopback without keys.")
@click.option("--access-log", is_flag=True, default=None, help="Print one JSON line per request.")
def dev(**options: Any) -> None:
    """Serve the Lambda API on this machine. Every option and more is also a KAPPA_* variable (docs/settings.md)."""
    from kappa_gateway.embedded.dev import run  # noqa: PLC0415
    from kappa_gateway.process import StartError  # noqa: PLC0415
    from kappa_gateway.settings import SettingsError, load  # noqa: PLC0415

    try:
        run(load(**options))
    except (SettingsError, StartError) as error:
        _fail(str(error))


@main.command()
@click.option("--port", type=int, default=None, help="Port of the Lambda API (9000); 0 takes a free one.")
def gateway(**options: Any) -> None:
    """Serve the Lambda API in a Kubernetes cluster. Everything else is a KAPPA_* variable, which the chart sets."""
    from kappa_gateway.kubernetes.serve import run  # noqa: PLC0415
    from kappa_gateway.kubernetes.settings import load  # noqa: PLC0415
    from kappa_gateway.process import StartError  # noqa: PLC0415
    from kappa_gateway.settings import SettingsError  # noqa: PLC0415

    try:
        run(load(**options))
    except (SettingsError, StartError) as error:
        _fail(str(error))


@main.command()
@click.argument("function")
@click.argument("payload", default="{}")
@click.option("--qualifier", default=None, help="Version or alias.")
@click.option("--no-logs", is_flag=True, help="Print the result only.")
@ENDPOINT
def invoke(function: str, payload: str, qualifier: str | None, no_logs: bool, endpoint_url: str) -> None:
    """Invoke FUNCTION with PAYLOAD (JSON, or @FILE, or - for standard input); the log goes to standard error."""
    try:
        if payload == "-":
            event = sys.stdin.buffer.read()
        elif payload.startswith("@"):
            event = Path(payload[1:]).read_bytes()
        else:
            event = payload.encode()
        answer = Client(endpoint_url).invoke(function, event, qualifier=qualifier)
    except (OSError, ClientError) as error:
        _fail(str(error))
    if not no_logs:
        click.echo(answer.log, err=True, nl=False)
    click.echo(answer.payload.decode("utf-8", "replace"))
    if answer.function_error:
        sys.exit(2)


@main.command()
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@ENDPOINT
def functions(output: str, endpoint_url: str) -> None:
    """List the functions."""
    try:
        found = Client(endpoint_url).functions()
    except (OSError, ClientError) as error:
        _fail(str(error))
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    rows = [("NAME", "RUNTIME", "MEMORY", "TIMEOUT", "CODE", "MODIFIED")]
    rows += [
        (
            each["FunctionName"],
            each.get("Runtime", "-"),
            f"{each['MemorySize']} MB",
            f"{each['Timeout']} s",
            f"{each['CodeSize']} B",
            each["LastModified"][:19],
        )
        for each in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@main.command()
@click.argument("function")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on.")
@click.option("--since", default="10m", show_default=True, help="How far back: seconds, or with s, m, h, d behind the number.")
@click.option("--request-id", default=None, help="Only the lines of this invocation.")
@ENDPOINT
def logs(function: str, follow: bool, since: str, request_id: str | None, endpoint_url: str) -> None:
    """Print what FUNCTION logged."""
    try:
        client = Client(endpoint_url)
        for line in client.logs(function, follow=follow, since=since, request_id=request_id, warn=_warn):
            click.echo(line, nl=False)
            sys.stdout.flush()
    except BrokenPipeError:  # `kappa logs NAME | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still wants to flush at its end
        sys.exit(0)
    except (OSError, ClientError) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


main.add_command(events)
main.add_command(crds)
main.add_command(cluster)


@main.group()
def api() -> None:
    """About the Lambda API as Kappa serves it."""


@main.group()
def sdk() -> None:
    """The AWS SDKs that functions find without bringing them."""


@sdk.command("install")
def sdk_install() -> None:
    """Install the AWS SDK for JavaScript v3 for Node.js functions (needs npm). The one for Python comes with Kappa."""
    from kappa_gateway.embedded.sdks import SdkError, install_node_sdk  # noqa: PLC0415

    try:
        click.echo(f"The AWS SDK for JavaScript v3 is in {install_node_sdk()}")
    except SdkError as error:
        _fail(str(error))


@api.command()
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def coverage(output: str) -> None:
    """List every operation of the installed Lambda model and whether it is implemented."""
    from kappa_gateway.api.coverage import coverage as rows  # noqa: PLC0415
    from kappa_gateway.operations.registry import OPERATIONS  # noqa: PLC0415

    found = rows(OPERATIONS)
    if output == "json":
        click.echo(json.dumps([{"operation": row.operation, "implemented": row.implemented} for row in found], indent=2))
        return
    for row in found:
        click.echo(f"{'yes' if row.implemented else 'no ':3}  {row.operation}")
    done = sum(row.implemented for row in found)
    click.echo(f"{done} of {len(found)} operations are implemented")
