"""``python -m kappa_runtime.pod``: the first process of a function's pod. What it is told comes by environment variables."""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

from kappa_runtime.pod.ahead import is_python, look_ahead, start_zygote


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(0)


def main() -> int:
    # The kernel drops a signal that the first process of a container has no handler for, and then the pod would end by SIGKILL
    # only: until the supervisor stands, which takes a moment, there is nothing to finish.
    signal.signal(signal.SIGTERM, _end_at_once)
    # Nothing that is loaded now ever becomes garbage.
    gc.disable()
    command = os.environ.get("KAPPA_RUNTIME_COMMAND", "")
    zygote = start_zygote(command) if is_python(command) else None
    looks = look_ahead(os.environ.get("KAPPA_GATEWAYS", ""))
    from kappa_core.link.addresses import AddressError  # noqa: PLC0415 - after the above
    from kappa_runtime.pod import serving  # noqa: PLC0415
    from kappa_runtime.pod.settings import SettingsError, from_environment  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    try:
        settings = from_environment(os.environ)
        if settings.own_machine and os.getpid() != 1:
            raise SettingsError("this program takes the whole filesystem for its function's: it is for a container of its own")
        return serving.run(settings, zygote, looks)
    except (SettingsError, AddressError, OSError) as error:
        print(f"kappa supervisor: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
