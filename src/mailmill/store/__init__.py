"""The store: the database that is the truth, and the raw messages beside it. No sockets of ours: drivers have theirs.

Laws of the room:

* Functions take the `AsyncConnection` of a transaction that the caller opened with `Database.write` or
  `Database.read`; none commits. What belongs together is called within one ``async with``.
* On SQLite one connection in one process writes; on PostgreSQL many do, so who decides about rows locks them first
  (`row_locks`, `dialect.lock`). `Database` takes the data folder's lock before anything else.
* Raw bytes are durable before the transaction that names them (`blobs`).
* Text from outside passes `dialect.storable` before it is bound: PostgreSQL refuses NUL, UTF-8 refuses surrogates.
* A hint (`wakeups`) is sent after a commit and may be lost; the rows are what counts, and a poll stands behind.

Files: ``tables`` the schema, ``migrations/`` and ``migrate`` how it comes about, ``database`` transactions
(``sqlite_database``; ``postgres_database`` with ``postgres_engine``, ``postgres_schema``, ``postgres_link``,
``postgres_errors`` and ``wake_channel``), ``data_folder`` the lock, ``row_locks`` in which order rows are locked,
``dialect`` where SQLite and PostgreSQL differ, ``wakeups`` hints; ``keys`` the master key;
``accounts``, ``mailboxes`` (with the cursor); ``messages`` the door to ``message_batch`` (what a sync pass writes),
``message_places``, ``message_deletion``, ``message_queries``, ``message_listing`` and ``message_counts``; ``blobs`` the
door to raw messages, in ``segments`` as files (``local_segments``) or objects (``object_…``), ``blob_marker`` whose
they are, ``blob_places`` where the bytes of one content lie; ``queue`` work, ``event_log``, ``outbox``; ``requests``
what is to be changed on the server; ``reprocess`` what is to be processed again (``reprocess_scope``,
``reprocess_pieces``, ``reprocess_cancel``); ``ledger`` what became of a message, ``operating_figures`` what an operator
counts; ``backup`` a copy of it all (``backup_manifest``, ``stored_files``,
``postgres_dump``), ``putting_back`` the way back.
"""
