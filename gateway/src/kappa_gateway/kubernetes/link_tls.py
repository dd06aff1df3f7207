"""The certificate of the link's listener, and the authority that gateways and pods know it by; read again when the files change.

The Secret is mounted as a folder that the kubelet replaces as a whole. A context that is in use takes a new certificate for the
connections that follow; those that stand are not touched, so a renewal interrupts nothing. It says how long the certificate is still
good, in a metric and, towards its end, in the log. It refuses to go on with half of a pair: what cannot be loaded is logged, and the
certificate that worked stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily

from kappa_gateway.kubernetes.certificates import CertificateError, expires

LOOK_SECONDS: Final = 30.0
WARNING_DAYS: Final = 30
"""Renewal (``kappa cluster renew``) begins 60 days before the end; with fewer than these left it does not happen."""
_DAY_SECONDS: Final = 86400.0

logger = logging.getLogger("kappa.link")


class LinkTlsError(Exception):
    """There is no usable certificate; the message is one line for the terminal."""


class LinkTls:
    """See the module. ``folder`` holds tls.crt, tls.key and ca.crt. Raises LinkTlsError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: tuple[bytes, ...] = ()
        self.ends: dict[str, float] = {}
        """The end of the ``server``'s and of the ``authority``'s certificate, in epoch seconds."""
        self._warned_at = float("-inf")
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
        self._warned_at = float("-inf")
        with contextlib.suppress(CertificateError):  # of a kind that ssl knows and cryptography does not
            self.ends = {"server": expires(found[0]).timestamp(), "authority": expires(found[2]).timestamp()}
        return True

    def gauges(self) -> Iterable[GaugeMetricFamily]:
        """For each scrape."""
        family = GaugeMetricFamily(
            "kappa_gateway_link_certificate_end_seconds",
            "When a certificate of the links ends, in seconds since the epoch.",
            labels=["certificate"],
        )
        for name, end in self.ends.items():
            family.add_metric([name], end)
        yield family

    def warning(self, now: float, /) -> str:
        """What the log is told at ``now`` (epoch seconds), once a day: a certificate ends within WARNING_DAYS. Empty: nothing."""
        if not self.ends or now - self._warned_at < _DAY_SECONDS:
            return ""
        name, end = min(self.ends.items(), key=lambda each: each[1])
        days = (end - now) / _DAY_SECONDS
        if days >= WARNING_DAYS:
            return ""
        self._warned_at = now
        when = f"ends in {days:.0f} days" if days > 0 else "has ended"
        return f"the certificate of the links' {name} {when}: without a new one (`kappa cluster renew`) function pods cannot link"

    async def run(self) -> None:
        """Look for a new certificate until cancelled."""
        while True:
            warning = self.warning(time.time())
            if warning:
                logger.warning("%s", warning)
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if await asyncio.to_thread(self.reload):
                    logger.info("the link's certificate was renewed")
            except (OSError, ssl.SSLError) as error:
                logger.warning("the link's new certificate cannot be used, the old one stays: %s", error)
