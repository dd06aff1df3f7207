"""A client of another AWS service that ends up here is told which setting it lacks."""

from __future__ import annotations

import boto3
import botocore.config
import botocore.exceptions
import pytest

from api_server import served
from kappa_core.limits import Limits
from kappa_gateway.api.app import build_app
from kappa_gateway.auth.identity import Defaults, Unverified


@pytest.mark.parametrize(
    ("service", "operation", "setting"),
    [("sqs", "list_queues", "KAPPA_ENDPOINT_URL_SQS"), ("dynamodb", "list_tables", "KAPPA_ENDPOINT_URL_DYNAMODB")],
)
def test_a_request_signed_for_another_service_names_the_setting(service: str, operation: str, setting: str) -> None:
    app = build_app({}, authenticator=Unverified(defaults=Defaults()), limits=Limits(), version="0")
    with served(app) as url:
        client = boto3.session.Session().client(
            service,
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
        )
        try:
            with pytest.raises(botocore.exceptions.ClientError, match=setting):
                getattr(client, operation)()
        finally:
            client.close()
