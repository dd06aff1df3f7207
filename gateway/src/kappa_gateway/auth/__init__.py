"""Who sends a request: SigV4, the session keys of functions, and the guard against web pages in a local browser.

Imported by the hot path too, so nothing here may load FastAPI, pydantic or botocore.
"""
