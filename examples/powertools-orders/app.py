"""A small orders API behind an HTTP API event, with Powertools for AWS Lambda: routing, structured logs, metrics.

Routes: `POST /quotes` prices a basket, `GET /products/<sku>` describes one product. Prices are in cents; what is not in the catalogue is
the caller's error (404 or 400), never a failed invocation.
"""

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.exceptions import BadRequestError, NotFoundError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import MetricUnit

CATALOGUE = {"tea": 450, "coffee": 320, "cake": 510}

app = APIGatewayHttpResolver()
logger = Logger(service="orders")
metrics = Metrics(namespace="Examples", service="orders")


@app.get("/products/<sku>")
def product(sku: str):
    """One product."""
    if sku not in CATALOGUE:
        raise NotFoundError(f"no product {sku}")
    return {"sku": sku, "cents": CATALOGUE[sku]}


@app.post("/quotes")
def quote():
    """The price of a basket: a list of objects with `sku` and `quantity`."""
    lines = app.current_event.json_body.get("lines") or []
    unknown = sorted({line["sku"] for line in lines} - set(CATALOGUE))
    if unknown or not lines:
        raise BadRequestError(f"not sold here: {', '.join(unknown)}" if unknown else "an empty basket")
    total = sum(CATALOGUE[line["sku"]] * int(line["quantity"]) for line in lines)
    logger.info("quoted", cents=total, lines=len(lines))
    metrics.add_metric(name="Quoted", unit=MetricUnit.Count, value=1)
    return {"cents": total}, 201


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP)
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event, context):
    """Lambda calls this."""
    return app.resolve(event, context)
