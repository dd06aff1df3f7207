"""``python -m kappa_runtime.supervisor --options FILE``: a supervisor as a process of its own.

FILE is JSON with the fields of :class:`kappa_core.nursery.SupervisorOptions`; ``-`` reads it from standard input, as the nursery
writes it where it cannot fork.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from kappa_core.link.addresses import AddressError
from kappa_core.nursery import SupervisorOptions
from kappa_runtime.supervisor import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="kappa-supervisor", description=__doc__)
    parser.add_argument("--options", required=True, metavar="FILE", help="JSON file, or - for standard input")
    parser.add_argument(
        "--lifeline", type=int, default=serve.NO_LIFELINE, help="descriptor whose end of file ends the supervisor"
    )
    arguments = parser.parse_args()
    try:
        data = sys.stdin.buffer.read() if arguments.options == "-" else Path(arguments.options).read_bytes()
        return serve.run(msgspec.json.decode(data, type=SupervisorOptions), arguments.lifeline)
    except (OSError, msgspec.DecodeError, AddressError) as error:
        print(f"kappa-supervisor: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
