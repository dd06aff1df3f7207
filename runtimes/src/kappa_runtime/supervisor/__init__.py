"""The supervisor: the parent of the runtimes of one function version.

``host``                   Host: all environments of one version; the package's face
``lifecycle``              Environment: init, invoke, timeout, reset, end; what the caller and the log get for each
``runtime_api``            the HTTP server that a runtime talks to (with ``http_answers``, ``response_stream``)
``launching``              which command and files a runtime and client need
``process``, ``zygote``    starting, watching and ending processes (with ``started``)
``memory``                 how much a runtime uses, and the end of one that uses too much
``storage``                how much it keeps in /tmp, where the filesystem does not say when that is full
``sandbox``                the filesystem that it sees
``environment_variables``  the variables that it sees
``log_capture``            what it prints; what Lambda itself writes into the log is said by :mod:`kappa_core.rules.log_lines`

It never imports the gateway, and it holds nothing that its function may not know.
"""
