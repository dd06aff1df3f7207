"""The supervisor's end of the link: dialling gateways, and the I/O shell around :mod:`kappa_core.link.parking`.

``dialling``  one gateway's connection: dials, redials with back-off, says when it is up or down
``client``    all gateways together: runs Parking, carries its effects out, keeps results until they have been read
``logs``      log lines on their way: batched, bounded, counted when dropped
"""
