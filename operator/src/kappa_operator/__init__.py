"""The operator: custom resources in, Deployments and what they need out. It never writes ``replicas`` and is on no request's path."""
