"""Code handling: archives in, read-only trees out.

``paths``    which names and links an archive may contain (pure)
``zips``     reading an archive: what is in it, how big it really is, AWS's refusals
``s3``       reading an archive from any S3-compatible endpoint
``intake``   the way in: check, store as a blob, describe as :class:`kappa_core.resources.Code`
``links``    signed links to archives, for whoever follows Code.Location
``unpack``   writing archives to a folder
``trees``    one read-only tree per archive, or per list of layers, shared by all environments
"""
