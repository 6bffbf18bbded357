"""Processing: runs processors over stored messages. No sockets to mail servers, no sync, no alerts: rows come from
``store.queue``, results and events go back there.

Laws:

- Rows are the truth and the fence decides: whatever happens in here, a message is run again rather than lost, and its
  result is recorded once.
- Nothing a processor does stops the worker: it may raise, hang, print, return nonsense or kill its process.
- Everything is bounded: what is claimed ahead, what is read ahead, threads, children, time, the size of a result.

Files: ``registry`` what a processor is and how it is found · ``worker`` the loop with the queue · ``pump`` the lanes of
one processor · ``loader`` messages, read in batches and parsed once · ``runners`` on the loop, in ``threads`` or in
``children`` (whose program is ``child``) · ``failures``, ``retry``, ``json_value`` pure decisions · ``threat/``,
``ai/``, ``category`` the processors that come with it.
"""
