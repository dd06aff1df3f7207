"""The supervisor as PID 1 of a pod: greets every gateway as a spare, becomes the supervisor of its function's revision, serves.

``ahead``      a zygote, started before the rest is loaded
``settings``   what the pod's manifest and the image say
``archives``   code and layers: fetched by signed link, checked, unpacked
``serving``    the supervisor of :mod:`kappa_runtime.supervisor` with what is different in a pod
"""
