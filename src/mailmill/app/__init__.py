"""The program: the engines wired together, started and stopped, and the one door through which it is used.

``wiring`` turns settings into the values the engines take · ``application`` opens the store and wires the engines to
it, ``supervisor`` runs them all in one task tree and stops it in order · ``use_cases`` is the only door for api, cli
and mcp; it answers in the words of the public contract, which ``views`` spells · ``account_tasks`` are the accounts and
the tasks that keep them in sync · ``ownership``, by ``shard_plan`` and ``lease_book``, says which of them are this
node's where several share one PostgreSQL; ``errands`` are what one node asks of another, ``borrowing`` is a command
that owns for a moment · ``one_pass`` is a sync on demand · ``reprocessing`` carries on what is to be processed again ·
``housekeeping`` removes what is too old, ``removal`` whole accounts · ``maintenance`` checks and backs up,
``restoring`` brings back · ``figures`` counts rows, once for all who ask within a moment · ``metrics`` counts and
times, ``scrape`` fills in what was counted · ``logs`` is the one stream of log lines · ``access_token`` keeps the
administrator's token · ``daemon_threads`` keeps stuck threads from holding the exit · ``demo`` is the service on sample
mail.

Mail in files is judged without any of this: ``mail_files`` reads it, ``threat_scanner`` judges one message (by a scope
that ``threat_scope`` makes of options and settings) and ``threat_explanation`` tells why, ``threat_scan`` judges many
in child processes, ``threat_evaluation`` measures how good the verdicts are.
"""
