"""The control plane's HTTP layer: the Lambda service model in, routes, parsed parameters and serialised answers out.

Nothing here knows what an operation does; :mod:`kappa_gateway.operations` provides the registry that :func:`.app.build_app` serves.
"""
