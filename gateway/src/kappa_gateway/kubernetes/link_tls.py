"""The certificate of the link's listener, and the authority that gateways and pods know it by; read again when the files change.

The Secret is mounted as a folder that the kubelet replaces as a whole. A context that is in use takes a new certificate for the
connections that follow; those that stand are not touched, so a renewal interrupts nothing. It refuses to go on with half of a pair: what
cannot be loaded is logged, and the certificate that worked stays.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 30.0

logger = logging.getLogger("kappa.link")


class LinkTlsError(Exception):
    """There is no usable certificate; the message is one line for the terminal."""


class LinkTls:
    """See the module. ``folder`` holds tls.crt, tls.key and ca.crt. Raises LinkTlsError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: tuple[bytes, ...] = ()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """For the listener."""
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """For dialling other gateways: checks their certificate and its name."""
        for context in (self.server, self.client):
            context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.reload()
        except (OSError, ssl.SSLError) as error:
            raise LinkTlsError(f"The link's certificate in {folder} cannot be used: {error}") from error

    def reload(self) -> bool:
        """Load what is there now if it is not what was loaded. Raises OSError and ssl.SSLError."""
        found = tuple((self._folder / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt"))
        if found == self._loaded:
            return False
        # Into a context of its own first: a key that does not fit must not replace one that does.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        self.client.load_verify_locations(self._folder / "ca.crt")
        self.server.load_cert_chain(self._folder / "tls.crt", self._folder / "tls.key")
        self._loaded = found
        return True

    async def run(self) -> None:
        """Look for a new certificate until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if await asyncio.to_thread(self.reload):
                    logger.info("the link's certificate was renewed")
            except (OSError, ssl.SSLError) as error:
                logger.warning("the link's new certificate cannot be used, the old one stays: %s", error)
