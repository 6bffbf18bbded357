"""The program: the engines wired together, started and stopped, and the one door through which it is used.

``wiring`` turns settings into the values the engines take · ``supervisor`` opens the store, runs every engine in one
task tree and stops it in order · ``use_cases`` is the only door for api, cli and mcp; it answers in the words of the
public contract, which ``views`` spells · ``one_pass`` is a sync on demand · ``metrics`` counts and times · ``logs`` is
the one stream of log lines · ``access_token`` keeps the administrator's token · ``demo`` is the service on sample
mail.
"""
