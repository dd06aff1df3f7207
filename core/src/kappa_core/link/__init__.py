"""The link between supervisors and gateways (design §3): its frames here, the state machines of its two ends beside them.

``frames``    what travels, and the codec
``parking``   the supervisor's end: owns every environment's state, decides where an idle one is parked
``dispatch``  the gateway's end: waiters, parked environments, in flight
``scale``     the scaler: how many environments there are, and the only source of a 429 for lack of concurrency
"""
