"""Asynchronous invocations behind the queue: from the 202 to the one state in which each event ends.

``intake``    takes events into the queue; what the hot path and Lambda destinations call
``worker``    leases them, runs them, and records how each attempt and each event ended
``progress``  what the worker notes in the queue between two steps
``slots``     how many events of which function run at once
``targets``   what an event runs on at this attempt, and who is told of its end
``delivery``  destinations and dead-letter queues
``counts``    what all this counts
``assembly``  these put together over a queue

The rules are pure and stand in :mod:`kappa_core.rules.retry` and :mod:`kappa_core.rules.destination_record`.
"""
