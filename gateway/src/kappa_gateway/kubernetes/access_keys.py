"""Access keys of the cluster: Secrets with a label in the release's namespace, kept as the API server has them at this moment.

The chart makes the first one (``kappa-access-key``); ``kubectl create secret`` and a label make more. A key belongs to one account, and
with an annotation to a user of Kubernetes whose rights then bound it; without one it may do everything in its account, as the
owner's keys on AWS. Fed by a watch, asked by the SigV4 verifier on every request; it refuses to write, and to guess: a Secret that lacks a
part, or repeats another one's key id, is no key, and the log says so.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kappa_gateway.auth.identity import Subject

_log = logging.getLogger(__name__)

LABEL: Final = "lambda.kappa.dev/access-key"
"""``true`` on the Secrets that are access keys."""
ACCOUNT: Final = "lambda.kappa.dev/account-id"
"""Annotation: the twelve digits of the key's account; without it the default one."""
REVIEW_AS: Final = "lambda.kappa.dev/review-as"
"""Annotation: ``<namespace>/<ServiceAccount>`` or a user name. The key may do what these may."""

_ACCOUNT_FORM: Final = re.compile(r"[0-9]{12}")
_SERVICE_ACCOUNT: Final = re.compile(r"([a-z0-9-]{1,63})/([a-z0-9.-]{1,253})")


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    access_key_id: str
    secret_access_key: str
    account: str
    subject: Subject | None
    """Whose rights bound the key; None: nobody's."""


class AccessKeys:
    """See the module. Implements the verifier's Credentials."""

    def __init__(self, *, default_account: str) -> None:
        self._default_account = default_account
        self._keys: dict[str, AccessKey] = {}
        self._owners: dict[str, str] = {}
        """Key id → name of its Secret."""

    def lookup(self, access_key_id: str) -> str | None:
        key = self._keys.get(access_key_id)
        return None if key is None else key.secret_access_key

    def get(self, access_key_id: str) -> AccessKey | None:
        return self._keys.get(access_key_id)

    def put(self, secret: Mapping[str, Any]) -> None:
        """A Secret is there, or has changed."""
        name = secret["metadata"]["name"]
        key = read_key(secret, default_account=self._default_account)
        self._forget(name, keep="" if key is None else key.access_key_id)
        if key is None:
            _log.warning(
                "Secret %s is no access key: it needs aws_access_key_id and aws_secret_access_key, and a valid account", name
            )
        elif self._owners.setdefault(key.access_key_id, name) == name:
            self._keys[key.access_key_id] = key
        else:
            _log.warning("Secret %s repeats the key id of Secret %s and is left out", name, self._owners[key.access_key_id])

    def remove(self, secret: Mapping[str, Any]) -> None:
        """A Secret is gone, or no longer labelled."""
        self._forget(secret["metadata"]["name"], keep="")

    def __len__(self) -> int:
        return len(self._keys)

    def _forget(self, name: str, *, keep: str) -> None:
        for key_id in [each for each, owner in self._owners.items() if owner == name and each != keep]:
            del self._owners[key_id], self._keys[key_id]


def read_key(secret: Mapping[str, Any], *, default_account: str) -> AccessKey | None:
    """The key in a Secret; None where a part is missing or cannot be read."""
    annotations = secret["metadata"].get("annotations") or {}
    account = annotations.get(ACCOUNT, default_account)
    try:
        data = {
            name: base64.b64decode(value, validate=True).decode().strip() for name, value in (secret.get("data") or {}).items()
        }
    except (binascii.Error, UnicodeDecodeError):
        return None
    key_id, secret_key = data.get("aws_access_key_id"), data.get("aws_secret_access_key")
    if not key_id or not secret_key or not _ACCOUNT_FORM.fullmatch(account):
        return None
    review_as = annotations.get(REVIEW_AS)
    return AccessKey(
        access_key_id=key_id,
        secret_access_key=secret_key,
        account=account,
        subject=None if review_as is None else subject_named(review_as),
    )


def subject_named(text: str) -> Subject:
    """``<namespace>/<name>`` is a ServiceAccount with the groups that the API server gives it; anything else a user's name."""
    found = _SERVICE_ACCOUNT.fullmatch(text.strip())
    if found is None:
        return Subject(username=text.strip(), groups=("system:authenticated",))
    return service_account(found[1], found[2])


def service_account(namespace: str, name: str) -> Subject:
    """A ServiceAccount as its own token would show it."""
    return Subject(
        username=f"system:serviceaccount:{namespace}:{name}",
        groups=("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"),
    )
