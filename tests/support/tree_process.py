"""A process of its own that unpacks one blob: ``tree_process.py BLOBS TREES SHA256``. Prints ``begin``, then the folder."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kappa_core.resources import Sha256
from kappa_gateway.code.trees import CodeTrees
from kappa_gateway.stores.files import FileBlobStore


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(blobs: Path, trees: Path, sha256: Sha256) -> None:
    store = await FileBlobStore.open(blobs)
    opened = await CodeTrees.open(trees, store)
    say("begin")
    say(str(await opened.task_root(sha256)))
    await opened.close()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), Sha256(sys.argv[3])))
