"""How good the threat engine is on folders of mail whose kind is known: phishing and ham.

The way: ``running`` (one process: prepares each message with its Authentication-Results and without, and weighs what
was found as often as there are questions) → ``cases`` (what is kept of each message) → ``figures`` (recall, false
positives, AUC, times; pure, by ``statistics``). ``peers`` asks other filters about the same mail.
"""
