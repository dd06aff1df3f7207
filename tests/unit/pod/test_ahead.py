"""What a pod begins before it loads anything else: names are looked up, and what goes wrong with that is left to whoever asks again."""

from __future__ import annotations

from kappa_runtime.pod.ahead import Look, look_ahead


def test_names_alone_are_looked_up() -> None:
    looks = look_ahead("dns:localhost:9443, tls:192.0.2.1:9443,dns::9443,dns:nothing")
    assert set(looks) == {"localhost"}
    looks["localhost"].join()
    assert looks["localhost"].found & {"127.0.0.1", "::1"}


def test_a_name_that_cannot_be_looked_up_has_no_address_and_raises_nothing() -> None:
    look = Look("a" * 64 + ".example", "9443")
    look.run()
    assert look.found == set()


def test_a_pod_without_gateways_looks_for_none() -> None:
    assert look_ahead("") == {}
