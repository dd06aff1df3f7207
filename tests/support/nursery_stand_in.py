"""A nursery whose supervisors are stand-ins, for tests of the nursery alone. ``python nursery_stand_in.py FD``.

The stand-in does what its supervisor id says: ``exit-3`` ends with that code, ``raise`` raises, ``obedient`` ends when the lifeline
does, ``stubborn`` never ends, ``detaching`` leaves a grandchild in a session of its own (its pid in the work directory) and waits.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from kappa_core.nursery import SupervisorOptions
from kappa_runtime.nursery.serving import Nursery


def run(options: SupervisorOptions, lifeline: int) -> int:
    action = options.supervisor_id
    if action.startswith("exit-"):
        return int(action.removeprefix("exit-"))
    if action == "raise":
        raise RuntimeError("a supervisor that breaks")
    if action == "obedient":
        os.read(lifeline, 1)
        return 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if action == "detaching" and os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        Path(options.work_dir, "grandchild").write_text(str(os.getpid()), encoding="ascii")
    while True:
        time.sleep(60)


if __name__ == "__main__":
    Nursery(socket.socket(fileno=int(sys.argv[1])), run=run, prepare=lambda _: None, forks=True).serve()
