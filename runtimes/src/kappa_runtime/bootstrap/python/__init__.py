"""The Python bootstrap: files that a function's own interpreter runs, standard library only, Python 3.9+.

``bootstrap.py``      one environment
``zygote.py``         the fork server
``enter_sandbox.py``  the filesystem, entered from inside; also used by the supervisor's own forks
"""
