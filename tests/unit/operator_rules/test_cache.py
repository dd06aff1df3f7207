"""What the operator keeps in mind: the newest state that it heard, nothing that is gone, and what each change concerns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kappa_crds.api import Object, Unavailable
from kappa_operator.cache import Cache, HasRole, Named, Ref, UsesLayer, indexers
from kappa_operator.concerns import concerned
from kappa_operator.pulse import Pulse
from kappa_operator.resync import Resync
from virtual_time import virtual

REGION = "eu-central-1"


def thing(kind: str = "Function", name: str = "hello", *, uid: str = "u1", version: int = 1, **fields: Any) -> Object:
    metadata = {"namespace": "shop", "name": name, "uid": uid, "resourceVersion": str(version), **fields.pop("metadata", {})}
    return {"kind": kind, "apiVersion": "lambda.kappa.dev/v1alpha1", "metadata": metadata, "spec": {}, **fields}


def cache(*things: Object) -> Cache:
    made = Cache(indexers(default_region=REGION))
    for each in things:
        assert made.put(each["kind"], each)
    return made


HELLO = Ref("Function", "shop", "hello")


def test_an_older_state_does_not_replace_a_newer_one() -> None:
    known = cache(thing(version=10, spec={"memorySize": 1}))
    assert not known.put("Function", thing(version=9, spec={"memorySize": 2}))
    assert not known.put("Function", thing(version=10, spec={"memorySize": 2}))
    assert known.get(HELLO)["spec"] == {"memorySize": 1}  # type: ignore[index]


def test_versions_are_compared_as_numbers() -> None:
    known = cache(thing(version=99))
    assert known.put("Function", thing(version=100))


def test_what_is_gone_is_not_brought_back_by_an_answer_that_was_under_way() -> None:
    known = cache(thing())
    assert known.drop("Function", thing(version=2))
    assert not known.put("Function", thing(version=3))
    assert known.get(HELLO) is None


def test_the_end_of_an_earlier_object_does_not_remove_the_next_one_of_its_name() -> None:
    known = cache(thing(uid="u1"), thing(uid="u2", version=5))
    assert not known.drop("Function", thing(uid="u1", version=6))
    assert known.get(HELLO) is not None


def test_source_code_and_managed_fields_are_not_kept() -> None:
    known = cache(thing(spec={"code": {"inline": "x" * 1000}, "memorySize": 1}, metadata={"managedFields": [{"manager": "m"}]}))
    kept = known.get(HELLO)
    assert kept is not None
    assert kept["spec"] == {"code": {"inline": ""}, "memorySize": 1}
    assert "managedFields" not in kept["metadata"]


def test_indexes_follow_what_an_object_says() -> None:
    known = cache(thing(spec={"functionName": "Hello", "layers": ["tools:1"], "role": "arn:aws:iam::1:role/a/orders"}))
    assert known.lookup("Function", Named(REGION, "Hello"))
    assert known.lookup("Function", UsesLayer(REGION, "tools"))
    assert known.lookup("Function", HasRole("shop", "orders"))
    known.put("Function", thing(version=2, spec={"functionName": "Hello"}))
    assert not known.lookup("Function", UsesLayer(REGION, "tools"))
    assert known.lookup("Function", HasRole("shop", "kappa-default"))
    known.drop("Function", thing(version=3))
    assert not known.lookup("Function", Named(REGION, "Hello"))


def keys(known: Cache, kind: str, before: Object | None, after: Object | None) -> set[str]:
    return {str(ref) for ref in concerned(known, kind, before, after, default_region=REGION)}


VERSION = thing("FunctionVersion", "hello.1", uid="v1", spec={"functionName": "hello", "version": 1, "layers": ["tools:1"]})
ALIAS = thing("Alias", "hello.live", uid="a1", spec={"functionName": "hello", "name": "live", "functionVersion": "1"})
LAYER = thing("LayerVersion", "tools.1", uid="l1", spec={"layerName": "tools", "version": 1})
ACCOUNT = thing(
    "ServiceAccount", "s", uid="s1", metadata={"annotations": {"lambda.kappa.dev/role": "arn:aws:iam::1:role/kappa-default"}}
)
DEPLOYMENT = thing("Deployment", "d", uid="d1", metadata={"labels": {"lambda.kappa.dev/function": "hello"}})


@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [
        pytest.param("Function", thing(), thing(version=2), {"Function shop/hello"}, id="a function that changes: itself"),
        pytest.param(
            "Function",
            None,
            thing(),
            {"Function shop/hello", "Namespace shop", "FunctionVersion shop/hello.1", "Alias shop/hello.live"},
            id="a function that comes: all of its name, and what its namespace needs",
        ),
        pytest.param(
            "FunctionVersion",
            VERSION,
            None,
            {"Function shop/hello", "FunctionVersion shop/hello.1", "Alias shop/hello.live"},
            id="a version that goes: the aliases that may name it",
        ),
        pytest.param("Alias", ALIAS, ALIAS, {"Function shop/hello", "Alias shop/hello.live"}, id="an alias: its function"),
        pytest.param(
            "LayerVersion",
            None,
            LAYER,
            {"LayerVersion shop/tools.1", "FunctionVersion shop/hello.1"},
            id="a layer that comes: who refers to it",
        ),
        pytest.param("Deployment", None, DEPLOYMENT, {"Function shop/hello"}, id="a Deployment: its function"),
        pytest.param("ServiceAccount", None, ACCOUNT, {"Function shop/hello"}, id="a role's account: who has the role"),
        pytest.param("ServiceAccount", ACCOUNT, ACCOUNT, set(), id="an account whose role stays: nobody"),
    ],
)
def test_a_change_concerns(kind: str, before: Object | None, after: Object | None, expected: set[str]) -> None:
    known = cache(thing(), VERSION, ALIAS)
    assert keys(known, kind, before, after) == expected


class Lists:
    """Collections that can be listed, and be out of reach."""

    def __init__(self) -> None:
        self.functions: list[Object] = []
        self.version = 100
        self.away = 0

    async def list(
        self, path: str, *, label_selector: str = "", field_selector: str = "", limit: int = 500
    ) -> tuple[list[Object], str]:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        return (self.functions if path.endswith("/functions") else []), str(self.version)


def resync(api: Lists, known: Cache, heard: list[tuple[str, bool]], queued: list[Ref], **options: Any) -> Resync:
    def hear(kind: str, gone: bool, each: Object) -> None:
        changed = known.drop(kind, each) if gone else known.put(kind, each)
        if changed:
            heard.append((each["metadata"]["name"], gone))

    return Resync(api, cache=known, hear=hear, enqueue=queued.append, seconds=600, **{"namespaces": (), **options})


@virtual
async def test_a_list_finds_what_came_and_what_went_unheard() -> None:
    api, known = Lists(), cache(thing(name="stays"), thing(name="gone", uid="u2"), thing(name="newer", uid="u3", version=200))
    api.functions = [thing(name="stays"), thing(name="came", uid="u4")]
    heard: list[tuple[str, bool]] = []
    await resync(api, known, heard, []).start()
    assert heard == [("came", False), ("gone", True)]
    assert known.get(Ref("Function", "shop", "newer")) is not None


@virtual
async def test_a_list_of_one_namespace_says_nothing_about_another() -> None:
    api, known = Lists(), cache(thing(), thing(metadata={"namespace": "other"}, uid="u2"))
    heard: list[tuple[str, bool]] = []
    made = resync(api, known, heard, [], namespaces=("shop", "other"))
    await made.collection("/apis/lambda.kappa.dev/v1alpha1/namespaces/shop/functions")
    assert heard == [("hello", True)]
    assert known.get(Ref("Function", "other", "hello")) is not None


@virtual
async def test_the_first_look_waits_for_the_api_server() -> None:
    api, known = Lists(), cache()
    api.functions, api.away = [thing()], 5
    heard: list[tuple[str, bool]] = []
    await resync(api, known, heard, []).start()
    assert heard == [("hello", False)]


@virtual
async def test_only_a_list_after_the_first_one_is_told_and_silence_is_counted_for_each_collection() -> None:
    again: list[str] = []
    pulse = Pulse(["/a", "/b"], listed_again=again.append)
    pulse.list("/a")
    pulse.list("/somewhere-else")
    assert not pulse.complete.is_set()
    pulse.list("/b")
    assert pulse.complete.is_set()
    await asyncio.sleep(50)
    pulse.hear("/b")
    await asyncio.sleep(10)
    assert pulse.silence() == {"/a": 60, "/b": 10}
    pulse.list("/a")
    assert again == ["/a"]
