"""Everything there should be for one Function: Deployments, the ServiceAccounts of its roles, and what its conditions say.

:func:`decide` gets the facts and answers with what to do; it decides the same for the same facts, so it can be asked as often as
anything happens. :func:`conditions` comes afterwards, because what the API server refused is part of what there is to say.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from kappa_core.resources import Alias, Configuration, Function, FunctionVersion
from kappa_crds import names
from kappa_crds.api import Object
from kappa_operator.reconcile.conditions import NAME_CONFLICT, STORED_ONLY, Condition, not_ready, ready
from kappa_operator.reconcile.deployment import Plan, deployment, plan, refused_pods
from kappa_operator.reconcile.revisions import Revision, live_revisions
from kappa_operator.reconcile.roles import service_account_for
from kappa_operator.settings import PodSettings


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a function when it is looked at."""

    thing: Object
    """The Function object."""
    function: Function
    versions: tuple[FunctionVersion, ...]
    aliases: tuple[Alias, ...]
    wanted: Mapping[str, float]
    """Version → epoch seconds of its annotation."""
    deployments: tuple[Object, ...]
    """Those that the object owns."""
    service_accounts: tuple[Object, ...]
    """All of the namespace."""
    taken_by: str | None
    """``namespace/name`` of the object that has the function's name, where it is not this one."""
    layers_missing: tuple[str, ...]
    """Layer version ARNs of the configuration that stand for nothing here."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    roles: tuple[str, ...]
    """That ServiceAccounts have to be made for."""
    deployments: Plan
    live: tuple[Revision, ...]
    again: float | None
    """Seconds after which to look again; None: when something happens."""


def decide(
    facts: Facts,
    *,
    settings: PodSettings,
    unneeded_since: Mapping[str, float],
    now: float,
    wanted_seconds: float,
    linger_seconds: float,
) -> Decision:
    """``now`` is epoch seconds."""
    live = live_revisions(
        facts.function,
        versions=facts.versions,
        aliases=facts.aliases,
        wanted=facts.wanted,
        now=now,
        wanted_seconds=wanted_seconds,
    )
    revisions = () if facts.taken_by is not None else live.revisions
    there = {each["metadata"]["name"] for each in facts.service_accounts}
    desired, roles = [], []
    for revision in revisions:
        image = settings.image(revision.configuration.runtime or "")
        if image is None:
            continue
        role = revision.configuration.role
        account = service_account_for(role, facts.service_accounts, account=facts.function.account)
        if account not in there and role not in roles:
            roles.append(role)
        desired.append(deployment(facts.thing, revision, image=image, service_account=account, settings=settings))
    planned = plan(desired, facts.deployments, unneeded_since=unneeded_since, now=now, linger_seconds=linger_seconds)
    waits = [seconds for seconds in (planned.again, None if live.until is None else live.until - now) if seconds is not None]
    return Decision(roles=tuple(roles), deployments=planned, live=revisions, again=min(waits, default=None))


def conditions(facts: Facts, *, settings: PodSettings, refused: str | None = None, waiting: str | None = None) -> list[Condition]:
    """What there is to say. ``refused`` is the API server's reason for not taking something that the function needs, ``waiting`` what
    has to be there before its Deployment can be made."""
    found = [_readiness(facts, settings=settings, refused=refused, waiting=waiting)]
    if facts.taken_by is not None:
        found.append(Condition(NAME_CONFLICT, "True", "NameTaken", _taken(facts)))
    stored = stored_only(facts.function.configuration)
    if stored:
        found.append(
            Condition(STORED_ONLY, "True", "NotApplied", f"{', '.join(stored)}: kept and shown, without effect in this version")
        )
    return found


def stored_only(configuration: Configuration) -> list[str]:
    """Fields of the spec that this version keeps and shows and that change nothing."""
    vpc = configuration.vpc_config
    given = {
        "vpcConfig": vpc is not None and bool(vpc.subnet_ids or vpc.security_group_ids),
        "fileSystemConfigs": bool(configuration.file_systems),
        "kmsKeyARN": configuration.kms_key_arn is not None,
        "snapStart": configuration.snap_start != "None",
        "tracingConfig": configuration.tracing_mode == "Active",
        "imageConfig": configuration.image_config is not None,
    }
    return [field for field, there in given.items() if there]


def _readiness(facts: Facts, *, settings: PodSettings, refused: str | None, waiting: str | None) -> Condition:
    serving, status = facts.function.status.serving, facts.thing.get("status") or {}
    if facts.taken_by is not None:
        return not_ready("NameConflict", _taken(facts))
    if facts.layers_missing:
        return not_ready("LayerNotFound", f"there is no layer version {', '.join(facts.layers_missing)}")
    if serving is None:
        if status.get("state") == "Failed":
            return not_ready("CodeFailed", status.get("stateReason") or "the code could not be taken in")
        return not_ready("CodePending", "the code has not been taken in yet", status="Unknown")
    if settings.image(serving.runtime or "") is None:
        return not_ready("RuntimeNotSupported", f"no image runs {serving.runtime or serving.package_type}")
    if refused is not None:
        return not_ready("Refused", f"the API server refuses what the function needs: {refused}")
    if waiting is not None:
        return not_ready("NamespaceNotReady", waiting, status="Unknown")
    for each in facts.deployments:
        why = refused_pods(each)
        if why is not None:
            return not_ready("PodsRefused", why)
    return ready(f"{names.deployment_name(facts.thing['metadata']['name'], _latest(facts.function, serving))} serves $LATEST")


def _latest(function: Function, serving: Configuration) -> str:
    return f"{function.meta.uid}.$LATEST.{serving.digest()}"


def _taken(facts: Facts) -> str:
    return f"{facts.taken_by} had the name {facts.function.name} before; this one is not served"
