"""The banner of ``kappa dev``: where it listens, and the lines to copy."""

from __future__ import annotations

import sys

from kappa_gateway.settings import Settings


def banner(settings: Settings, *, endpoint: str) -> str:
    """The text for the terminal."""
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    keys = (
        "any AWS credentials will do"
        if settings.access_key_id is None
        else "requests must be signed with the key in KAPPA_ACCESS_KEY_ID"
    )
    return f"""
  Kappa serves the AWS Lambda API at {endpoint}   ({keys})
  data: {settings.data_dir.absolute()}    docs: {endpoint}/docs    metrics: {endpoint}/metrics

  Type this in another terminal:

    export AWS_ENDPOINT_URL_LAMBDA={endpoint} AWS_DEFAULT_REGION={settings.region} \\
           AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
    printf 'def handler(event, context):\\n    return {{"hello": event.get("name")}}\\n' > app.py
    python3 -m zipfile -c app.zip app.py
    aws lambda create-function --function-name hello --runtime {runtime} --handler app.handler \\
        --role arn:aws:iam::{settings.account}:role/lambda --zip-file fileb://app.zip
    aws lambda wait function-active-v2 --function-name hello
    aws lambda invoke --function-name hello out.json && cat out.json
    kappa invoke hello '{{"name": "you"}}'

  Ctrl-C stops everything.
"""
