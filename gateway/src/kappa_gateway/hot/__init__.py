"""The hot path: Invoke without the web framework. It never imports FastAPI, pydantic or botocore (import-linter holds it to that)."""
