"""``python -m kappa_runtime.nursery --control FD``: started by the gateway, never by hand.

Loads the supervisor before the first command, so that a forked one has nothing left to import, and moves all of it out of the
garbage collector's sight, so that children share those pages for their whole life.
"""

from __future__ import annotations

import argparse
import gc
import socket
import sys

from kappa_runtime.nursery.serving import Nursery
from kappa_runtime.supervisor import host as _host  # noqa: F401 - loaded by a supervisor when it needs it, and then there already
from kappa_runtime.supervisor import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="kappa-nursery", description=__doc__)
    parser.add_argument("--control", type=int, required=True, help="descriptor of the inherited control socket")
    parser.add_argument("--spawn", action="store_true", help="spawn supervisors instead of forking them")
    arguments = parser.parse_args()
    with socket.socket(fileno=arguments.control) as control:
        serve.loop_factory()  # the import alone, which no child has to do then
        gc.collect()
        gc.freeze()
        gc.disable()
        forks = sys.platform == "linux" and not arguments.spawn
        Nursery(control, run=serve.run, prepare=serve.prepare, forks=forks).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
