"""Writes the thumbnail in an answer of the function (first argument) to a file (second argument)."""

import base64
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    answer = json.loads(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_bytes(base64.b64decode(answer["image"]))
    print(f"{sys.argv[2]}: {answer['width']} x {answer['height']} pixels")
