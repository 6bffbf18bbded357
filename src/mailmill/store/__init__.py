"""The store: the database that is the truth, and the folder of raw messages beside it. No sockets here.

Laws of the room:

* Functions take the `AsyncConnection` of a transaction that the caller opened with `Database.write` or
  `Database.read`; none commits. What belongs together is called within one ``async with``.
* On SQLite one connection in one process writes. `Database` takes the data folder's lock before anything else.
* Raw bytes are on disk, synced, before the transaction that names them (`blobs`).
* Text from outside passes `dialect.storable` before it is bound: PostgreSQL refuses NUL, UTF-8 refuses surrogates.
* A hint (`wakeups`) is sent after a commit and may be lost; the rows are what counts, and a poll stands behind.

Files: ``tables`` the schema, ``migrations/`` and ``migrate`` how it comes about, ``database`` transactions,
``data_folder`` the lock, ``dialect`` where SQLite and PostgreSQL differ, ``wakeups`` hints; ``keys`` the master key;
``accounts``, ``mailboxes`` (with the cursor); ``messages`` the door to ``message_batch`` (what a sync pass writes),
``message_places``, ``message_deletion`` and ``message_queries``; ``blobs`` raw messages; ``queue`` work, ``event_log``,
``outbox``; ``requests`` what is to be changed on the server.
"""
