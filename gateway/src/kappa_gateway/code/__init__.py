"""Code handling: archives in, read-only trees out. What an archive may contain is said by :mod:`kappa_core.archives`.

``s3``       reading an archive from any S3-compatible endpoint
``intake``   the way in: check, store as a blob, describe as :class:`kappa_core.resources.Code`
``links``    signed links to archives, for whoever follows Code.Location
``trees``    one read-only tree per archive, or per list of layers, shared by all environments
"""
