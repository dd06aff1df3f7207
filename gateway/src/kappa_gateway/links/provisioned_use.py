"""How the provisioned concurrency of each version is used at this gateway: numbers that the links count and a scrape reads.

What AWS calls ProvisionedConcurrencyInvocations and ProvisionedConcurrencySpilloverInvocations. An invocation counts when it is given to an
environment: as provisioned by what the environment is, as spillover where one on demand runs what provisioned ones are kept for.
"""

from __future__ import annotations

from kappa_core.spec import VersionSpec, initialization_type


class Use:
    """Of one version."""

    __slots__ = ("account", "configured", "function", "invocations", "spillover", "version")

    def __init__(self, spec: VersionSpec) -> None:
        self.account = spec.account
        self.function = spec.function_name
        self.version = spec.version
        self.configured = True
        """Whether environments are kept for it now; what was counted before stays."""
        self.invocations = 0
        self.spillover = 0


class ProvisionedUse:
    """Of all versions that have, or had, provisioned concurrency since the gateway started, by revision."""

    __slots__ = ("uses",)

    def __init__(self) -> None:
        self.uses: dict[str, Use] = {}

    def configure(self, spec: VersionSpec) -> None:
        """Environments are kept for this version from now on."""
        self.uses.setdefault(spec.revision, Use(spec)).configured = True

    def forget(self, revision: str) -> None:
        """None are kept any more."""
        if revision in self.uses:
            self.uses[revision].configured = False

    def count(self, revision: str, environment_id: str) -> None:
        """An invocation of this revision was given to this environment."""
        use = self.uses.get(revision)
        if use is None:
            return
        if initialization_type(environment_id) == "provisioned-concurrency":
            use.invocations += 1
        elif use.configured:
            use.spillover += 1
