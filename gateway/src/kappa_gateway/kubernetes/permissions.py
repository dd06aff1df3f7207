"""What an operation of the Lambda API is in Kubernetes' words, and whether whoever asks may do it.

An operation on a function is a verb on the custom resource that stands for it, in the namespace of the account: who may ``kubectl
create`` a Function may CreateFunction. Invoking is ``create`` on ``functions/invoke``. The table below is the whole mapping; a test holds
it against the operations that there are. Callers without a subject (the owner's access keys, and everybody in ``auth.mode=anonymous``)
are not asked. It refuses, with AWS's AccessDeniedException, what no rule allows, and names the rule that would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kappa_core.errors import AccessDeniedException, LambdaError
from kappa_core.names import parse_function
from kappa_core.resources import AccountId, Region
from kappa_gateway.auth.identity import Identity, Subject
from kappa_gateway.kubernetes.places import Places
from kappa_gateway.kubernetes.reviews import Attributes, Reviews

GROUP: Final = "lambda.kappa.dev"


class Permission(NamedTuple):
    """The verb and resource of an operation; ``of_function``: RBAC may name the single functions that it holds for."""

    verb: str
    resource: str
    subresource: str = ""
    of_function: bool = False


INVOKE: Final = Permission("create", "functions", "invoke", of_function=True)

_GET_FUNCTION: Final = Permission("get", "functions", of_function=True)
_UPDATE_FUNCTION: Final = Permission("update", "functions", of_function=True)

OPERATIONS: Final[Mapping[str, Permission]] = {
    "Invoke": INVOKE,
    "InvokeWithResponseStream": INVOKE,
    "CreateFunction": Permission("create", "functions"),
    "GetFunction": _GET_FUNCTION,
    "GetFunctionConfiguration": _GET_FUNCTION,
    "GetFunctionConcurrency": _GET_FUNCTION,
    "GetFunctionRecursionConfig": _GET_FUNCTION,
    "GetRuntimeManagementConfig": _GET_FUNCTION,
    "UpdateFunctionCode": _UPDATE_FUNCTION,
    "UpdateFunctionConfiguration": _UPDATE_FUNCTION,
    "PutFunctionConcurrency": _UPDATE_FUNCTION,
    "DeleteFunctionConcurrency": _UPDATE_FUNCTION,
    "PutFunctionRecursionConfig": _UPDATE_FUNCTION,
    "PutRuntimeManagementConfig": _UPDATE_FUNCTION,
    "DeleteFunction": Permission("delete", "functions", of_function=True),
    "ListFunctions": Permission("list", "functions"),
    "GetAccountSettings": Permission("list", "functions"),
    "TagResource": Permission("update", "functions"),
    "UntagResource": Permission("update", "functions"),
    "ListTags": Permission("get", "functions"),
    "PublishVersion": Permission("create", "functionversions"),
    "ListVersionsByFunction": Permission("list", "functionversions"),
    "CreateAlias": Permission("create", "aliases"),
    "GetAlias": Permission("get", "aliases"),
    "UpdateAlias": Permission("update", "aliases"),
    "DeleteAlias": Permission("delete", "aliases"),
    "ListAliases": Permission("list", "aliases"),
    # What `kubectl scale` needs for the same; a version's own as well.
    "PutProvisionedConcurrencyConfig": Permission("update", "aliases", "scale"),
    "DeleteProvisionedConcurrencyConfig": Permission("update", "aliases", "scale"),
    "GetProvisionedConcurrencyConfig": Permission("get", "aliases"),
    "ListProvisionedConcurrencyConfigs": Permission("list", "aliases"),
    "PublishLayerVersion": Permission("create", "layerversions"),
    "GetLayerVersion": Permission("get", "layerversions"),
    "GetLayerVersionByArn": Permission("get", "layerversions"),
    "GetLayerVersionPolicy": Permission("get", "layerversions"),
    "AddLayerVersionPermission": Permission("update", "layerversions"),
    "RemoveLayerVersionPermission": Permission("update", "layerversions"),
    "DeleteLayerVersion": Permission("delete", "layerversions"),
    "ListLayers": Permission("list", "layerversions"),
    "ListLayerVersions": Permission("list", "layerversions"),
    "PutFunctionEventInvokeConfig": Permission("create", "eventinvokeconfigs"),
    "UpdateFunctionEventInvokeConfig": Permission("update", "eventinvokeconfigs"),
    "GetFunctionEventInvokeConfig": Permission("get", "eventinvokeconfigs"),
    "DeleteFunctionEventInvokeConfig": Permission("delete", "eventinvokeconfigs"),
    "ListFunctionEventInvokeConfigs": Permission("list", "eventinvokeconfigs"),
    # Kappa's own routes; see kappa_gateway.native and kappa_gateway.native_events.
    "ReadLogs": Permission("get", "functions", "logs", of_function=True),
    "ReadEvents": Permission("get", "functions", "events", of_function=True),
    "ChangeEvents": Permission("update", "functions", "events", of_function=True),
}


class Permissions:
    """See the module."""

    def __init__(self, reviews: Reviews, places: Places) -> None:
        self._reviews = reviews
        self._places = places

    def known(self, identity: Identity, permission: Permission, function: str, /) -> bool:
        """Whether the request is allowed, as far as that is known without asking: False means *ask*, not *refused*."""
        subject = identity.subject
        if subject is None:
            return True
        wanted = self._attributes(identity, permission, function)
        return bool(wanted) and all(self._reviews.known_access(subject, each) is True for each in wanted)

    async def check(self, identity: Identity, permission: Permission, function: str = "", *, action: str) -> None:
        """Raises AccessDeniedException where the caller may not. ``function`` as the request names it; ``action`` is Lambda's."""
        subject = identity.subject
        if subject is None:
            return
        wanted = self._attributes(identity, permission, function)
        for each in wanted:
            if not await self._reviews.access(subject, each):
                raise _denied(subject, identity, action=action, lacking=f" because no rule of Kubernetes allows it to {each}")
        if not wanted:
            raise _denied(subject, identity, action=action, lacking=": no namespace is that account")

    async def check_operation(self, identity: Identity, operation: str, params: Mapping[str, Any]) -> None:
        """The same for an operation of the service model with its parameters, and for the role that these hand to a function."""
        if identity.subject is None:
            return
        permission = OPERATIONS.get(operation)
        if permission is None:
            raise AccessDeniedException(f"{operation} cannot be granted by rules of Kubernetes.")
        function = params.get("FunctionName") or ""
        await self.check(identity, permission, function, action=operation)
        if params.get("Role"):
            await self._check_role(identity, identity.subject, params["Role"], function)

    async def _check_role(self, identity: Identity, subject: Subject, role: str, function: str) -> None:
        """Whose identity a function gets is not to be chosen by whoever may only write functions: iam:PassRole, on AWS."""
        place = self._place(identity, function)
        namespace = place[0] if place is not None else next(iter(self._places.namespaces_of(identity.account)), "")
        name = self._places.service_account(role, account=identity.account, namespace=namespace)
        wanted = Attributes(verb="use", group="", resource="serviceaccounts", namespace=namespace, name=name)
        if not await self._reviews.access(subject, wanted):
            raise AccessDeniedException(
                f"User: {subject.username} is not authorized to perform: iam:PassRole on resource: {role} because no rule of "
                f"Kubernetes allows it to use serviceaccounts/{name} in namespace {namespace}"
            )

    def _attributes(self, identity: Identity, permission: Permission, function: str) -> list[Attributes]:
        """What has to be allowed, in the function's namespace or in all of the account's; nothing where there is none."""
        place = self._place(identity, function)
        if place is not None:
            places = [(place[0], place[1] if permission.of_function else "")]
        else:
            namespaces = self._places.namespaces_of(identity.account)
            places = [(each, "") for each in (namespaces[:1] if permission.verb == "create" else namespaces)]
        return [
            Attributes(
                verb=permission.verb,
                group=GROUP,
                resource=permission.resource,
                subresource=permission.subresource,
                namespace=namespace,
                name=name,
            )
            for namespace, name in places
        ]

    def _place(self, identity: Identity, function: str) -> tuple[str, str] | None:
        """Namespace and object of a function that a request names; None where it names none, or none of this account."""
        if not function:
            return None
        try:
            name = parse_function(function, None, account=AccountId(identity.account), region=Region(identity.region))
        except LambdaError:
            return None  # the operation will say what is wrong with it, to whoever may do this to all
        return self._places.function(name.key)


def _denied(subject: Subject, identity: Identity, *, action: str, lacking: str) -> AccessDeniedException:
    return AccessDeniedException(
        f"User: {subject.username} is not authorized to perform: lambda:{_ACTIONS.get(action, action)} in account "
        f"{identity.account}{lacking}"
    )


_ACTIONS: Final = {"Invoke": "InvokeFunction"}
"""Actions of IAM that are not called as their operations."""
