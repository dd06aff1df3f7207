"""A process of its own that works on functions through the operations over the embedded drivers, until it is killed.

``python control_plane_process.py FOLDER SEED`` makes random requests without end and prints a JSON line for each acknowledged one.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from control_plane import ROLE, ControlPlane, settling
from kappa_core.errors import LambdaError
from kappa_core.limits import Limits
from kappa_core.resources import Sha256
from kappa_gateway.code.intake import CodeIntake
from kappa_gateway.code.s3 import S3Settings
from kappa_gateway.code.trees import CodeTrees
from kappa_gateway.stores.files import FileBlobStore
from kappa_gateway.stores.sqlite import SqliteResourceStore

NAMES = ("a", "b", "c")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[ControlPlane, CodeTrees]]:
    """The operations over the drivers in ``folder``, with the settler running."""
    store = await SqliteResourceStore.open(folder / "state.db")
    blobs = await FileBlobStore.open(folder / "blobs")
    trees = await CodeTrees.open(folder / "code", blobs)
    intake = CodeIntake(blobs, Limits(), S3Settings())
    plane = ControlPlane(wrap=lambda _: store, intake=intake, trees=trees)
    try:
        async with settling(plane):
            yield plane, trees
    finally:
        await intake.close()
        await trees.close()
        await blobs.close()
        await store.close()


def archive(text: str) -> bytes:
    """A zip with one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("app.py", text)
    return file.getvalue()


def request(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """Any request on any of the functions."""
    name = {"FunctionName": chance.choice(NAMES)}
    code = archive(f"x = {chance.randrange(10**9)}")
    publish = chance.random() < 0.5
    requests: list[tuple[str, dict[str, Any]]] = [
        (
            "CreateFunction",
            {**name, "Runtime": "python3.12", "Handler": "a.b", "Role": ROLE, "Code": {"ZipFile": code}, "Publish": publish},
        ),
        ("UpdateFunctionCode", {**name, "ZipFile": code, "Publish": publish}),
        ("UpdateFunctionConfiguration", {**name, "Timeout": chance.randint(1, 900)}),
        ("PublishVersion", name),
        ("CreateAlias", {**name, "Name": "live", "FunctionVersion": "$LATEST"}),
        ("DeleteFunction", name),
    ]
    return chance.choice(requests)


async def work(folder: Path, seed: int) -> None:
    async with opened(folder) as (plane, _):

        async def lane(number: int) -> None:
            chance = random.Random(seed * 100 + number)
            while True:
                operation, params = request(chance)
                try:
                    answer = await plane(operation, **params)
                except LambdaError as error:
                    if error.status >= 500:
                        raise
                    continue
                line = {"operation": operation, "function": params["FunctionName"], "answer": answer}
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()

        await asyncio.gather(*(lane(number) for number in range(3)))


def unpacked(folder: Path, sha256: Sha256) -> bool:
    return (folder / "code" / "task" / sha256 / "app.py").is_file()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), int(sys.argv[2])))
