"""Bodies of requests: JSON that reads the same as YAML.

The API server reads an apply configuration as YAML whatever it is written in. JSON is YAML but for a few characters that JSON may carry
as they are: YAML's reader refuses some (``error converting YAML to JSON: control characters are not allowed``) and takes others for line
breaks, and folds them away. Written as escapes they are the same text in both.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

_NOT_PLAIN_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""YAML 1.1, 5.1 and 5.4: outside its printable characters, byte order marks, line breaks. JSON has them in strings alone."""


def encode_body(body: Any, /) -> bytes:
    """A value of JSON as the body of any request."""
    data = msgspec.json.encode(body)
    if data.isascii() and b"\x7f" not in data:
        return data
    return _NOT_PLAIN_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()
