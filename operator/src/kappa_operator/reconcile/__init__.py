"""What there should be: pure functions from resources as they were seen to objects, deletions and conditions.

No function in here waits, writes or reads a clock. Objects of Kubernetes are plain dictionaries with every field set that the API
server would otherwise default, so that what is there can be compared with what should be (:mod:`kappa_operator.reconcile.compare`).
"""
