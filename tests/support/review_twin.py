"""The reviews of an API server in memory: tokens of users, and who may do what; it counts what it is asked."""

from __future__ import annotations

import asyncio
from typing import Any

from kappa_crds.api import Unavailable


class ReviewTwin:
    """Implements the ReviewApi of kappa_gateway.kubernetes.reviews."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        """By token."""
        self.allowed: set[tuple[str, str, str, str]] = set()
        """User, verb, resource with subresource, name; an empty name allows all."""
        self.asked: list[str] = []
        """``token`` or the right that was asked about."""
        self.audiences: tuple[str, ...] = ()
        """That tokens are good for, where a review names any."""
        self.away = False
        self.gate = asyncio.Event()
        """Answers wait while it is clear."""
        self.gate.set()

    async def post(self, path: str, body: dict[str, Any], /) -> dict[str, Any]:
        await self.gate.wait()
        if self.away:
            raise Unavailable("the API server cannot be reached")
        spec = body["spec"]
        if path.endswith("tokenreviews"):
            self.asked.append("token")
            user = self.users.get(spec["token"])
            status = {"authenticated": user is not None, "user": user or {}, "audiences": list(self.audiences)}
        else:
            wanted = spec["resourceAttributes"]
            resource = "/".join(part for part in (wanted["resource"], wanted.get("subresource")) if part)
            self.asked.append(
                f"{spec['user']} {wanted['verb']} {resource} {wanted['namespace']} {wanted.get('name', '')}".strip()
            )
            names = {wanted.get("name", ""), ""}
            status = {"allowed": any((spec["user"], wanted["verb"], resource, name) in self.allowed for name in names)}
        return {"status": status}

    def user(self, token: str, name: str, *groups: str) -> str:
        self.users[token] = {"username": name, "groups": list(groups), "uid": f"uid of {name}"}
        return name
