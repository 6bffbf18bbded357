"""What ``mailmill doctor`` looks at, one file per part of the world.

Law: looking changes nothing. No file is created, no lock is taken, the database is opened read-only, and the service is
asked rather than bypassed where it runs.

``findings`` (what a look yields) · ``machine`` (Python, packages, clock) · ``threat_rules`` · ``own_processors`` ·
``storage`` (data folder, service, SQLite) · ``postgres`` · ``master_key`` · ``raw_messages`` (object store, shared
folder) · ``network`` (accounts, destinations).
"""
