"""Drivers of the ports for one machine: SQLite for resources and logs, files for blobs, all under one data directory.

``database``  what both SQLite stores share: opening and migrating a file, one writer thread with group commit, readers
``sqlite``    ResourceStore
``announced`` the same for its own process: its writes are known at once, ahead of the watch
``logs``      LogStore, a ring of bounded size
``queue``     EventQueue
``gathering`` many calls in one transaction
``files``     BlobStore
"""
