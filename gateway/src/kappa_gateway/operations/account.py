"""GetAccountSettings: the limits of the account in this region, and what is used of them."""

from __future__ import annotations

from kappa_core.resources import AccountId, Region
from kappa_core.rules.concurrency import unreserved
from kappa_gateway.api.context import Params, RequestContext
from kappa_gateway.operations.claims import read_claims
from kappa_gateway.operations.dependencies import Dependencies, Members
from kappa_gateway.operations.storage import read_usage


async def get_account_settings(deps: Dependencies, context: RequestContext, _params: Params) -> Members:
    account, region = AccountId(context.account), Region(context.region)
    usage = await read_usage(deps.store, account, region)
    claims = await read_claims(deps.store, account, region)
    return {
        "AccountLimit": {
            "TotalCodeSize": deps.limits.code_storage_bytes,
            "CodeSizeUnzipped": deps.limits.unzipped_bytes,
            "CodeSizeZipped": deps.limits.zip_bytes,
            "ConcurrentExecutions": deps.limits.account_concurrency,
            "UnreservedConcurrentExecutions": unreserved(deps.limits, claims.amounts()),
        },
        "AccountUsage": {"TotalCodeSize": usage.code_bytes, "FunctionCount": usage.functions},
    }
