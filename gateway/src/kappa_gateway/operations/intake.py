"""Takes the code of a request in: from its body or from S3, into the BlobStore, within the account's storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kappa_core.resources import AccountId, Code, Region
from kappa_core.rules.source import ZipSource, source_of
from kappa_gateway.api.context import RequestContext
from kappa_gateway.operations.dependencies import Dependencies


async def take_code(deps: Dependencies, context: RequestContext, members: Mapping[str, Any]) -> Code:
    """The stored code that ``members`` (ZipFile, S3Bucket, ...) name. Raises what is wrong with it as Lambda's errors."""
    source = source_of(members)
    if isinstance(source, ZipSource):
        code = await deps.intake.from_zip(source.data)
    else:
        code = await deps.intake.from_s3(source.bucket, source.key, source.version, region=context.region)
    await check_storage(deps, AccountId(context.account), Region(context.region), adding=code.size)
    key_arn = members.get("SourceKMSKeyArn")
    return msgspec.structs.replace(code, source_kms_key_arn=key_arn) if key_arn else code


async def check_storage(deps: Dependencies, account: AccountId, region: Region, *, adding: int) -> None:
    """Raises CodeStorageExceededException where the account has no room for ``adding`` more bytes of code."""
    await deps.storage.check(deps.store, account, region, limit=deps.limits.code_storage_bytes, adding=adding)
