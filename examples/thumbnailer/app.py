"""Makes a thumbnail of an image: base64 in, base64 out.

The event has `image` (base64 of any format that Pillow reads) and optionally `size` (the longer side in pixels, 128 unless given). The
answer has the thumbnail as JPEG with its width and height. An image that cannot be read is the caller's error and fails the invocation.
"""

import base64
import io

from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 2048
"""Pixels of the longer side: the answer has to stay below Lambda's 6 MB."""


def handler(event, context):
    """Lambda calls this."""
    size = int(event.get("size", 128))
    if not 1 <= size <= LARGEST:
        raise ValueError(f"size must be between 1 and {LARGEST}")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(event["image"], validate=True)))
        upright = ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise ValueError("image is in no format that can be read") from error
    print(f"{picture.format} {picture.width}x{picture.height} -> at most {size} pixels")
    thumbnail = upright.convert("RGB")
    thumbnail.thumbnail((size, size))
    encoded = io.BytesIO()
    thumbnail.save(encoded, "JPEG", quality=85, optimize=True)
    return {
        "image": base64.b64encode(encoded.getvalue()).decode(),
        "width": thumbnail.width,
        "height": thumbnail.height,
    }
