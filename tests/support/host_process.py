"""A Host in a process of its own, as a real supervisor is: ``python host_process.py FOLDER``.

Runs the function in FOLDER/task, prints what its first invocation returned, and on a line of standard input closes the host and
prints ``closed``. A test may kill it instead.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from kappa_core.link.frames import Invoke
from kappa_runtime.supervisor.host import Host
from supervised import ARN, version_spec


async def serve(folder: Path) -> None:
    spec = version_spec(folder / "task", timeout=30.0)
    host = Host(spec=spec, work_dir=folder / "work", on_log=lambda _environment, _lines: None, mode="plain", own_process=True)
    await host.prepare()
    environment = await host.start("environment-1")
    await environment.init()
    _, payload = await environment.invoke(Invoke(request_id="1", function_arn=ARN), b"null")
    print(json.dumps({"returned": json.loads(payload), "runtime": environment.pid}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await host.close()
    print("closed", flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
