"""Fuzzing: any bytes into the parts of mailmill that read what strangers send.

=========================  ======================================================================================
``fuzz_wire``              bytes of an IMAP server → framing → events → session and collectors
``fuzz_message_parser``    bytes of a message → `parse_message`, `parse_headers`
``reference_framer``       framing once more, slow and plain, to compare with
``__main__``               runs a target under atheris (libFuzzer): ``make fuzz``, ``make fuzz TARGET=wire SECONDS=600``
``seeds``                  where every run begins: shapes of real answers and messages, made up by hand
``corpus/TARGET/``         inputs that reach new code, minimised; ``tests/unit/test_fuzz_corpus.py`` runs them all
``crashes/``, ``found/``   what a run writes (not in the repository)
=========================  ======================================================================================

A target is a function ``check(data)`` that returns or raises AssertionError; nothing in it needs atheris. After mending
a crash, move its file from ``crashes/`` to the corpus: from then on every test run repeats it.
``python -m fuzz --merge`` makes the corpus anew from what long runs have found.
"""
