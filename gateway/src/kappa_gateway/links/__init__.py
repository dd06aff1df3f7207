"""The gateway's end of the link: connections, and the I/O shell around dispatch and scale (:mod:`kappa_core.link`).

``server``   listens and greets: supervisors and peer gateways
``sealing``  what proves that a spec which a supervisor shows was made by a gateway
``shell``    InvocationPort: runs an event on an environment; turns frames into calls of the state machines and effects into frames
``news``     what the links have to tell the scaler's shell
``scaling``  the shell around the scaler: provider, collections, denials
``assembly`` GatewayLinks: all of these put together, with or without peers
``changes``  what the index sees of changes, for the shell
``provisioning``     provisioned concurrency: from configurations to what the scaler keeps, and back to their states
``provisioned_use``  how it is used, for metrics
``peers``    gateways that share environments: who holds the scaler, and what the others tell it
"""
