"""``kappa cluster``: what a chart, or an administrator without one, runs against a cluster. Parses, calls, prints."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from kappa_crds.api import KubernetesApi

NAMESPACE = click.option("--namespace", default="kappa-system", show_default=True, help="Namespace of the release.")
LINK_SERVICE = click.option(
    "--link-service", default="kappa-gateway-links", show_default=True, help="Headless Service of the gateways' links."
)
CLUSTER_DOMAIN = click.option("--cluster-domain", default="cluster.local", show_default=True, help="Domain of Services' names.")


@click.group()
def cluster() -> None:
    """A cluster's preparation, and the proof that it works."""


@cluster.command()
@NAMESPACE
@LINK_SERVICE
@CLUSTER_DOMAIN
@click.option("--postgresql-host", default=None, help="Make a password for the PostgreSQL server of this name.")
@click.option("--no-crds", is_flag=True, help="Leave the CustomResourceDefinitions to somebody else.")
def prepare(namespace: str, link_service: str, cluster_domain: str, postgresql_host: str | None, no_crds: bool) -> None:
    """Apply the CustomResourceDefinitions and make the Secrets that are missing; may be repeated, and run twice at once."""
    from kappa_crds.apply import apply_crds  # noqa: PLC0415
    from kappa_gateway.kubernetes.access_keys import LABEL  # noqa: PLC0415
    from kappa_gateway.kubernetes.namespace_secrets import NamespaceSecrets  # noqa: PLC0415
    from kappa_gateway.kubernetes.prepare import Preparation, link_names  # noqa: PLC0415
    from kappa_gateway.kubernetes.prepare import prepare as run  # noqa: PLC0415

    asked = Preparation(
        link_names=link_names(link_service, namespace=namespace, domain=cluster_domain),
        access_key_labels={LABEL: "true"},
        postgresql_host=postgresql_host,
    )

    async def work(api: KubernetesApi) -> None:
        await run(
            asked,
            secrets_of=NamespaceSecrets(api, namespace=namespace),
            apply_crds=None if no_crds else lambda: apply_crds(api, say=click.echo),
            now=datetime.now(UTC),
            say=click.echo,
        )

    _connected(work)


@cluster.command()
@NAMESPACE
@LINK_SERVICE
@CLUSTER_DOMAIN
def renew(namespace: str, link_service: str, cluster_domain: str) -> None:
    """Sign the links' certificate anew if it ends soon, and nothing else; gateways take it over while they run."""
    from kappa_gateway.kubernetes.namespace_secrets import NamespaceSecrets  # noqa: PLC0415
    from kappa_gateway.kubernetes.prepare import link_names  # noqa: PLC0415
    from kappa_gateway.kubernetes.prepare import renew as run  # noqa: PLC0415

    async def work(api: KubernetesApi) -> None:
        await run(
            link_names(link_service, namespace=namespace, domain=cluster_domain),
            secrets_of=NamespaceSecrets(api, namespace=namespace),
            now=datetime.now(UTC),
            say=click.echo,
        )

    _connected(work)


@cluster.command()
@click.option(
    "--endpoint-url",
    envvar=["KAPPA_ENDPOINT", "AWS_ENDPOINT_URL_LAMBDA"],
    default="http://127.0.0.1:9000",
    show_default=True,
    help="The gateway to talk to.",
)
@click.option("--runtime", default="python3.13", show_default=True, help="Runtime of the function.")
def test(endpoint_url: str, runtime: str) -> None:
    """Make a function by the Lambda API, invoke it, delete it. Credentials and region as for the AWS CLI."""
    from kappa_gateway.kubernetes.trial import TrialError, run  # noqa: PLC0415

    try:
        run(endpoint_url, runtime=runtime, say=click.echo)
    except TrialError as error:
        _fail(str(error))


def _connected(work: Callable[[KubernetesApi], Awaitable[None]]) -> None:
    """Do it with the cluster's API, or fail with one line."""
    from kappa_crds.api import ApiError, KubernetesApi  # noqa: PLC0415
    from kappa_gateway.kubernetes.prepare import PrepareError  # noqa: PLC0415

    async def connected() -> None:
        api = await KubernetesApi.connect()
        try:
            await work(api)
        finally:
            await api.close()

    try:
        asyncio.run(connected())
    except (ApiError, PrepareError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    click.echo(f"kappa: {message}", err=True)
    sys.exit(1)
