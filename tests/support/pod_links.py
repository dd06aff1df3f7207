"""The supervisors' links as a provider of pods sees them: who is linked and what runs there is the test's to say."""

from __future__ import annotations

from kappa_core.spec import VersionSpec


class Links:
    """See the module. What was assigned, and the code that came along, can be looked at."""

    def __init__(self) -> None:
        self.linked: dict[str, list[str]] = {}
        self.assigned: dict[str, str] = {}
        self.code: dict[str, bytes] = {}

    def supervisors(self) -> list[str]:
        return list(self.linked)

    def environments_of(self, supervisor_id: str, /) -> tuple[str, ...] | None:
        running = self.linked.get(supervisor_id)
        return None if running is None else tuple(running)

    def assign(self, supervisor_id: str, spec: VersionSpec, /, code: bytes = b"") -> bool:
        if supervisor_id not in self.linked:
            return False
        self.assigned[supervisor_id] = spec.revision
        self.code[supervisor_id] = code
        return True

    def start(self, supervisor_id: str, environment_ids: list[str], /) -> bool:
        if supervisor_id not in self.linked:
            return False
        self.linked[supervisor_id] += environment_ids
        return True
