"""Every operation that Kappa implements, under its name in the service model, ready to be called with a request.

What the stores cannot do becomes an error of the API here, once for all: nothing was written, the caller may try again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from kappa_core.errors import InvalidParameterValueException, ResourceConflictException, ServiceException
from kappa_core.ports.blobs import BlobError, BlobStoreUnavailable
from kappa_core.ports.store import OwnedElsewhere, Rejected, StoreError, StoreUnavailable
from kappa_gateway.api.context import Operation, Params, RequestContext
from kappa_gateway.operations import (
    account,
    aliases,
    concurrency,
    configuration,
    event_invoke_configs,
    functions,
    layer_permissions,
    layers,
    provisioned,
    tags,
    versions,
)
from kappa_gateway.operations.dependencies import Dependencies

_log = logging.getLogger(__name__)

Implementation = Callable[[Dependencies, RequestContext, Params], Awaitable[dict[str, Any]]]

OPERATIONS: Final[Mapping[str, Implementation]] = {
    "CreateFunction": functions.create_function,
    "GetFunction": functions.get_function,
    "UpdateFunctionCode": functions.update_function_code,
    "DeleteFunction": functions.delete_function,
    "ListFunctions": functions.list_functions,
    "GetFunctionConfiguration": configuration.get_function_configuration,
    "UpdateFunctionConfiguration": configuration.update_function_configuration,
    "GetFunctionRecursionConfig": configuration.get_function_recursion_config,
    "PutFunctionRecursionConfig": configuration.put_function_recursion_config,
    "GetRuntimeManagementConfig": configuration.get_runtime_management_config,
    "PutRuntimeManagementConfig": configuration.put_runtime_management_config,
    "PublishVersion": versions.publish_version,
    "ListVersionsByFunction": versions.list_versions_by_function,
    "CreateAlias": aliases.create_alias,
    "GetAlias": aliases.get_alias,
    "UpdateAlias": aliases.update_alias,
    "DeleteAlias": aliases.delete_alias,
    "ListAliases": aliases.list_aliases,
    "PublishLayerVersion": layers.publish_layer_version,
    "GetLayerVersion": layers.get_layer_version,
    "GetLayerVersionByArn": layers.get_layer_version_by_arn,
    "ListLayers": layers.list_layers,
    "ListLayerVersions": layers.list_layer_versions,
    "DeleteLayerVersion": layers.delete_layer_version,
    "AddLayerVersionPermission": layer_permissions.add_layer_version_permission,
    "RemoveLayerVersionPermission": layer_permissions.remove_layer_version_permission,
    "GetLayerVersionPolicy": layer_permissions.get_layer_version_policy,
    "TagResource": tags.tag_resource,
    "UntagResource": tags.untag_resource,
    "ListTags": tags.list_tags,
    "PutFunctionConcurrency": concurrency.put_function_concurrency,
    "GetFunctionConcurrency": concurrency.get_function_concurrency,
    "DeleteFunctionConcurrency": concurrency.delete_function_concurrency,
    "PutProvisionedConcurrencyConfig": provisioned.put_provisioned_concurrency_config,
    "GetProvisionedConcurrencyConfig": provisioned.get_provisioned_concurrency_config,
    "DeleteProvisionedConcurrencyConfig": provisioned.delete_provisioned_concurrency_config,
    "ListProvisionedConcurrencyConfigs": provisioned.list_provisioned_concurrency_configs,
    "PutFunctionEventInvokeConfig": event_invoke_configs.put_function_event_invoke_config,
    "UpdateFunctionEventInvokeConfig": event_invoke_configs.update_function_event_invoke_config,
    "GetFunctionEventInvokeConfig": event_invoke_configs.get_function_event_invoke_config,
    "DeleteFunctionEventInvokeConfig": event_invoke_configs.delete_function_event_invoke_config,
    "ListFunctionEventInvokeConfigs": event_invoke_configs.list_function_event_invoke_configs,
    "GetAccountSettings": account.get_account_settings,
}


def build_registry(deps: Dependencies) -> dict[str, Operation]:
    """The operations bound to their dependencies."""
    return {name: _bound(implementation, deps) for name, implementation in OPERATIONS.items()}


def _bound(implementation: Implementation, deps: Dependencies) -> Operation:
    async def operation(context: RequestContext, params: Params) -> dict[str, Any]:
        try:
            return await implementation(deps, context, params)
        except OwnedElsewhere as error:
            raise ResourceConflictException(str(error)) from error
        except Rejected as error:
            raise InvalidParameterValueException(str(error)) from error
        except (StoreError, BlobError) as error:
            expected = isinstance(error, StoreUnavailable | BlobStoreUnavailable)  # the disk is full: no traceback helps
            _log.error("request %s: the store failed: %s", context.request_id, error, exc_info=None if expected else error)
            raise ServiceException(f"The request could not be stored: {error}") from error

    return operation
