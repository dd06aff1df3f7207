"""What Lambda means, without I/O: the model, the rules and the ports.

Everything here is either data (resources, names, limits, errors, frames), a pure decision over that data (publish, route,
dispatch, park, scale), or a Protocol behind which a driver does I/O. Nothing here opens a socket, a file or a clock.
"""
