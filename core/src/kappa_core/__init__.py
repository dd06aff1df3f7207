"""What Lambda means: the model, the rules and the ports.

Everything here is either data (resources, names, limits, errors, frames), a pure decision over that data (publish, route,
dispatch, park, scale), or a Protocol behind which a driver does I/O. Nothing here opens a socket or a clock; files are touched
by the unpacking of archives alone.
"""
