"""A process of its own that stores blobs without end, printing the digest of each once it is stored: ``blob_process.py ROOT``."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from kappa_gateway.stores.files import FileBlobStore


async def main(root: Path) -> None:
    store = await FileBlobStore.open(root)
    dice = random.Random()
    while True:
        data = dice.randbytes(dice.randrange(300_000))
        sys.stdout.write((await store.put(data)).sha256 + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
