"""The custom resources of ``lambda.kappa.dev`` and the Kubernetes API, as the gateway, the operator and the command line share them.

Names, labels and annotations; the CustomResourceDefinitions themselves; the way between a resource of the core and an object of the
API; and a thin client. It decides nothing about functions and knows no HTTP server, no Deployment and no link.
"""
