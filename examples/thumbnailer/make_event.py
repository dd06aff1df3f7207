"""Writes an event for the thumbnailer to standard output: of the image file given, or of a picture it draws itself.

The drawn one is a real JPEG of 1200 x 800 pixels that says by its EXIF data that it has to be turned, as phones do.
"""

import base64
import io
import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

ORIENTATION = 0x0112
TURN_RIGHT = 6


def draw() -> bytes:
    """A landscape: sky, sun, hills."""
    picture = Image.linear_gradient("L").resize((1200, 800))
    picture = Image.merge("RGB", (picture.point(lambda value: value // 2), picture, picture.point(lambda _: 230)))
    pencil = ImageDraw.Draw(picture)
    pencil.ellipse((850, 100, 1000, 250), fill=(255, 220, 90))
    for left, height in ((-200, 420), (250, 520), (700, 460)):
        pencil.ellipse((left, height, left + 900, 1100), fill=(40, 90 + height // 8, 50))
    exif = Image.Exif()
    exif[ORIENTATION] = TURN_RIGHT
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=90, exif=exif)
    return encoded.getvalue()


if __name__ == "__main__":
    content = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else draw()
    json.dump({"image": base64.b64encode(content).decode(), "size": 160}, sys.stdout)
