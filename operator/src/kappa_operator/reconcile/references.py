"""What the other kinds say about themselves: whether what they refer to is there, and what this version does with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kappa_core.resources import LATEST, Alias, EventInvokeConfig, Function, FunctionVersion
from kappa_core.rules.deletion import belongs
from kappa_operator.reconcile.conditions import Condition, not_ready, ready

Child = FunctionVersion | Alias | EventInvokeConfig


def version_condition(version: FunctionVersion, *, function: Function | None, layers_missing: Collection[str]) -> Condition:
    """Of a FunctionVersion; whether a Deployment is up for it now is no matter of its readiness."""
    if function is None or not belongs(version, function):
        return _orphan(version, function)
    if layers_missing:
        return not_ready("LayerNotFound", f"there is no layer version {', '.join(layers_missing)}")
    if not version.configuration.code.sha256:
        return not_ready("CodePending", "the code has not been taken in yet", status="Unknown")
    return ready("can be invoked")


def alias_condition(alias: Alias, *, function: Function | None, versions: Iterable[FunctionVersion]) -> Condition:
    """Of an Alias."""
    if function is None or not belongs(alias, function):
        return _orphan(alias, function)
    there = {LATEST, *(str(each.version) for each in versions if belongs(each, function))}
    missing = [each for each in (alias.function_version, *alias.additional_version_weights) if each not in there]
    if missing:
        return not_ready("VersionNotFound", f"{alias.name} has no version {', '.join(missing)}")
    return ready(f"resolves to version {alias.function_version}")


def event_invoke_config_condition(
    config: EventInvokeConfig, *, function: Function | None, versions: Iterable[FunctionVersion], aliases: Iterable[Alias]
) -> Condition:
    """Of an EventInvokeConfig."""
    if function is None or not belongs(config, function):
        return _orphan(config, function)
    there = {
        LATEST,
        *(str(each.version) for each in versions if belongs(each, function)),
        *(each.alias for each in aliases if belongs(each, function)),
    }
    if config.qualifier not in there:
        return not_ready("QualifierNotFound", f"{config.name} has no version or alias {config.qualifier}")
    return ready(f"applies to asynchronous invocations of {config.qualifier}")


def layer_version_condition(*, has_content: bool, deleted: bool) -> Condition:
    """Of a LayerVersion."""
    if deleted:
        return not_ready("Deleted", "deleted; functions that refer to it keep working, new ones cannot")
    if not has_content:
        return not_ready("ContentPending", "the content has not been taken in yet", status="Unknown")
    return ready("functions can refer to it")


def layer_condition(name: str, *, newest: int | None, failure: str | None) -> Condition:
    """Of a Layer, whose content becomes a new LayerVersion each time it changes."""
    if failure is not None:
        return not_ready("ContentFailed", failure)
    if newest is None:
        return not_ready("ContentPending", f"no version of layer {name} has been made of the content yet", status="Unknown")
    return ready(f"version {newest} is the newest", reason="Published")


def event_source_mapping_condition() -> Condition:
    """Of an EventSourceMapping."""
    return not_ready("PollersNotIncluded", "stored and shown; this version has no pollers, so no events are read from the source")


def _orphan(child: Child, function: Function | None) -> Condition:
    if function is None:
        return not_ready("FunctionNotFound", f"there is no function {child.name}")
    return not_ready("NotAdopted", f"made for another function than the {child.name} of now", status="Unknown")
