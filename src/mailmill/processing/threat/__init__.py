"""The threat engine: a verdict on each message, deterministic, with its evidence. No network, no clock, no state.

Laws of this room:

- A detector is a small pure function ``(ThreatContext) -> Iterable[Finding]``; one module per family, each with a tuple
  ``DETECTORS``. A detector looks at the prepared context only and states what it saw; what that is worth stands in the
  table of ``scoring``.
- The benign side is carried by authentication and alignment, as the account's own server reports them, never by style.
- Whatever a sender writes is bounded before it is looked at; patterns are linear.

Files: ``engine`` (runs the families) · ``context`` (prepares a message once) · ``scoring`` (weights as data, the
verdict, the reasons in words) · the families ``authentication``, ``sender``, ``domains``, ``links``, ``attachments`` ·
what they share: ``authentication_results`` (RFC 8601), ``hosts`` (public suffixes, URLs as browsers read them),
``attached_files`` (names and first bytes), ``lookalike`` (letters that pass for others), ``impersonation`` (brands in
words and domains), ``brands`` and ``reference`` (lists).
"""
