"""In-memory twins of the ports: the same promises without durability, for tests and simulations.

They pass the conformance suites of the drivers (``tests/contract``), hold everything in plain dictionaries and take their clock
from outside. They refuse what the drivers refuse; what only a disk can do wrong does not happen to them.
"""

from kappa_core.memory.blobs import MemoryBlobStore
from kappa_core.memory.logs import MemoryLogStore
from kappa_core.memory.queue import MemoryEventQueue
from kappa_core.memory.store import MemoryResourceStore

__all__ = ["MemoryBlobStore", "MemoryEventQueue", "MemoryLogStore", "MemoryResourceStore"]
