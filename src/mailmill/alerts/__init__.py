"""Events → people and programs: who wants an event, what it looks like outside, and getting it there.

Laws of this room:

- At least once, with an id that stays: a receiver drops the repeat by its ``webhook-id`` (``evt_<event id>``).
- A destination that hangs, refuses or is down delays no other destination and no processing: each has its own pump,
  client, concurrency and health, and none is waited for by another.
- The outbox is the truth (``store.outbox``); hints only shorten the wait. A claim is sent, or given back.
- Nothing leaves for an address inside our own network unless the destination says so, and secrets stay out of logs,
  errors and reprs.

Files: ``rules`` (destinations, who wants what, when to try again; pure) · ``rendering`` (an event as the contract shows
it; the API shows the same) · ``envelopes`` (rendered events, shared by destinations) · ``senders`` (what a kind of
destination is) · ``webhook`` (Standard Webhooks over HTTP) · ``guarded_transport`` (addresses that may not be called) ·
``health`` (when a destination is left alone; pure) · ``pump`` (one destination) · ``dispatcher`` (all of them, and the
planner).
"""
