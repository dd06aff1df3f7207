"""Every AWS Lambda limit as a named constant with its source, and the subset that an administrator may raise as policy.

Sources: [Q] Lambda quotas, docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html; [M] the botocore service model;
[R] recorded answers. Sizes are bytes, times are seconds unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final

import msgspec

# -- payloads ------------------------------------------------------------------------------------------------------
SYNC_REQUEST_BYTES: Final = 6 * 1024 * 1024  # [R] 6291456
BUFFERED_RESPONSE_BYTES: Final = 6 * 1024 * 1024 + 100  # [R] 6291556: what the runtime may post
STREAMED_RESPONSE_BYTES: Final = 200 * 1024 * 1024  # [Q] since July 2025, 20 MB before
ASYNC_REQUEST_BYTES: Final = 1024 * 1024  # [Q] since October 2025, 262144 before
LOG_TAIL_BYTES: Final = 4096  # [M] X-Amz-Log-Result

# -- code ----------------------------------------------------------------------------------------------------------
ZIP_BYTES: Final = 50 * 1024 * 1024  # [Q] 52428800, direct upload
CONTROL_REQUEST_BYTES: Final = 70_167_211  # [R] a 50 MiB zip in base64 plus the rest of CreateFunction
UNZIPPED_BYTES: Final = 262_144_000  # [Q] function and layers together
CODE_STORAGE_BYTES: Final = 80_530_636_800  # [R] GetAccountSettings TotalCodeSize
LAYERS_PER_FUNCTION: Final = 5  # [Q]

# -- configuration -------------------------------------------------------------------------------------------------
MEMORY_MIN_MB: Final = 128  # [Q]
MEMORY_MAX_MB: Final = 10_240  # [Q]; the model allows 32768 for managed instances
TIMEOUT_MAX: Final = 900  # [Q]
TIMEOUT_DEFAULT: Final = 3  # [Q]
EPHEMERAL_MIN_MB: Final = 512  # [Q]
EPHEMERAL_MAX_MB: Final = 10_240  # [Q]
ENVIRONMENT_BYTES: Final = 4096  # [R] of the compact JSON
FUNCTION_NAME_LENGTH: Final = 64  # [R]
FUNCTION_ARN_LENGTH: Final = 140  # [R]
TAGS_PER_RESOURCE: Final = 50  # [Q]
DESCRIPTION_LENGTH: Final = 256  # [M]
HANDLER_LENGTH: Final = 128  # [M]

# -- concurrency ---------------------------------------------------------------------------------------------------
ACCOUNT_CONCURRENCY: Final = 1000  # [Q] per region
UNRESERVED_MINIMUM: Final = 100  # [R] what must stay unreserved
ENVIRONMENTS_PER_10_SECONDS: Final = 1000  # [Q] scaling rate per function

# -- phases --------------------------------------------------------------------------------------------------------
INIT_SECONDS: Final = 10.0  # [Q] on-demand init; what takes longer is re-run inside the first invoke
PROVISIONED_INIT_SECONDS: Final = 130.0  # [Q] or the function's timeout where that is longer; what takes longer has failed
SHUTDOWN_INTERNAL_SECONDS: Final = 0.5
SHUTDOWN_EXTERNAL_SECONDS: Final = 2.0

PAGE_ITEMS: Final = 50  # [R] list operations return at most this many per page


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is policy rather than contract: an administrator may change it, the default is AWS's."""

    timeout_max: int = TIMEOUT_MAX
    memory_max_mb: int = MEMORY_MAX_MB
    sync_request_bytes: int = SYNC_REQUEST_BYTES
    async_request_bytes: int = ASYNC_REQUEST_BYTES
    buffered_response_bytes: int = BUFFERED_RESPONSE_BYTES
    zip_bytes: int = ZIP_BYTES
    unzipped_bytes: int = UNZIPPED_BYTES
    code_storage_bytes: int = CODE_STORAGE_BYTES
    account_concurrency: int = ACCOUNT_CONCURRENCY
    unreserved_minimum: int = UNRESERVED_MINIMUM
    environments_per_10_seconds: int = ENVIRONMENTS_PER_10_SECONDS
    init_seconds: float = INIT_SECONDS
    capacity_wait_seconds: float = 30.0
    """How long a waiter may wait for an environment before 503."""
    capacity_queue: int = 10_000
    """Waiters per function version before 503 at once."""
