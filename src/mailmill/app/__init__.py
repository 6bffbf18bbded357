"""The program: the engines wired together, started and stopped, and the one door through which it is used.

``wiring`` turns settings into the values the engines take · ``supervisor`` opens the store, runs every engine in one
task tree and stops it in order · ``use_cases`` is the only door for api, cli and mcp; it answers in the words of the
public contract, which ``views`` spells · ``one_pass`` is a sync on demand · ``figures`` counts rows, once for all who
ask within a moment · ``metrics`` counts and times · ``logs`` is the one stream of log lines · ``access_token`` keeps
the administrator's token · ``daemon_threads`` keeps stuck threads from holding the exit · ``demo`` is the service on
sample mail.
"""
