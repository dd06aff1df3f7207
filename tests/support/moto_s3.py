"""An S3 to test against: moto's server as a process of its own on a free port.

A process, not a thread: it shares no warnings filter, no botocore patches and no open sockets with the test that uses it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_RUNNING_ON = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


@contextmanager
def moto_s3() -> Iterator[str]:
    """Run it for the duration of the block; gives `http://127.0.0.1:PORT`. Any credentials are right."""
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            printed: list[str] = []
            for line in process.stderr:
                printed.append(line)
                found = _RUNNING_ON.search(line)
                if found:
                    break
            else:
                raise AssertionError(f"moto did not start:\n{''.join(printed)}")
            # It logs every request: somebody has to read on, or it blocks on a full pipe.
            reader = threading.Thread(target=process.stderr.read, daemon=True)
            reader.start()
            yield found[1]
        finally:
            process.terminate()
            process.wait()
        reader.join()
