"""Drivers of the ports.

For one machine, SQLite for resources and logs, files for blobs, all under one data directory:

``database``  what both SQLite stores share: opening and migrating a file, one writer thread with group commit, readers
``sqlite``    ResourceStore
``announced`` the same for its own process: its writes are known at once, ahead of the watch
``logs``      LogStore, a ring of bounded size
``queue``     EventQueue
``gathering`` many calls in one transaction
``files``     BlobStore

For several gateways, what Kubernetes does not keep:

``postgres``        connections, and what becomes of PostgreSQL's errors
``postgres_schema`` migrations, in ``postgres_migrations``
``postgres_queue``  EventQueue; with ``postgres_queue_rows`` and ``.sql``, and ``postgres_wakes`` for news between gateways
``postgres_blobs``  BlobStore
``s3_blobs``        BlobStore in a bucket
``blob_cache``      local copies of archives that lie elsewhere
"""
