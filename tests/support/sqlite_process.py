"""A process of its own that works on a SqliteResourceStore until it is told to stop or is killed.

``write DB PREFIX``   creates, updates and deletes resources without end; prints a line after each acknowledged write
``count DB N``        allocates N numbers of the counter ``shared`` and prints them
``race DB NAME``      tries to create one function; prints ``created`` or ``exists``
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

import msgspec

from kappa_core.ports.store import AlreadyExists
from kappa_gateway.stores.sqlite import SqliteResourceStore
from store_samples import function


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def write(path: Path, prefix: str) -> None:
    store = await SqliteResourceStore.open(path)

    async def lane(number: int) -> None:
        for turn in itertools.count():
            name = f"{prefix}-{number}-{turn}"
            created = await store.create(function(name))
            say(f"created {name} {created.meta.resource_version}")
            updated = await store.update(msgspec.structs.replace(created, tags={"turn": str(turn)}))
            say(f"updated {name} {updated.meta.resource_version}")
            if turn % 3 == 0:
                await store.delete(updated.key)
                say(f"deleted {name} -")
            say(f"allocated {await store.allocate('kill')} -")

    await asyncio.gather(*(lane(number) for number in range(4)))


async def count(path: Path, numbers: int) -> None:
    store = await SqliteResourceStore.open(path)
    for number in await asyncio.gather(*(store.allocate("shared") for _ in range(numbers))):
        say(str(number))
    await store.close()


async def race(path: Path, name: str) -> None:
    store = await SqliteResourceStore.open(path)
    try:
        await store.create(function(name))
        say("created")
    except AlreadyExists:
        say("exists")
    await store.close()


if __name__ == "__main__":
    mode, database, argument = sys.argv[1:]
    if mode == "write":
        asyncio.run(write(Path(database), argument))
    elif mode == "count":
        asyncio.run(count(Path(database), int(argument)))
    else:
        asyncio.run(race(Path(database), argument))
