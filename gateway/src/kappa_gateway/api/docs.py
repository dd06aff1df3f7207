"""The page at ``/docs``: Swagger UI over ``/openapi.json``, without a request to any other host.

FastAPI's own page loads Swagger UI from a content delivery network, which leaves it blank without internet and tells strangers that
somebody runs Kappa. Script and style come from the package ``fastapi-offline`` instead. A content security policy has the browser
hold the page to this; Swagger UI's own validator, which would send the document's address away, is off.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse

_ASSETS: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)
"""The page configures Swagger UI in an inline script; its icons are data."""
_NO_ICON: Final = "data:,"


def add_docs(app: FastAPI, *, url: str = "/docs") -> None:
    """Serve the page at ``url`` and its assets below it. Raises FileNotFoundError where the package lacks them."""
    page = get_swagger_ui_html(
        openapi_url=str(app.openapi_url),
        title=app.title,
        swagger_js_url=f"{url}/swagger-ui-bundle.js",
        swagger_css_url=f"{url}/swagger-ui.css",
        swagger_favicon_url=_NO_ICON,
        swagger_ui_parameters={"tagsSorter": "alpha", "validatorUrl": None},
    )
    page.headers["content-security-policy"] = _POLICY

    async def docs(_: Request) -> Response:
        return page

    app.add_route(url, docs)
    folder = Path(str(importlib.resources.files("fastapi_offline"))) / "static"
    for name, media_type in _ASSETS.items():
        app.add_route(f"{url}/{name}", _file(folder / name, media_type))


def _file(path: Path, media_type: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    stat = path.stat()

    async def answer(_: Request) -> Response:
        return FileResponse(path, media_type=media_type, stat_result=stat, headers={"cache-control": "max-age=3600"})

    return answer
