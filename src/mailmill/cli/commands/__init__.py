"""One file per command or family of commands.

Each takes its options, asks the service through ``Invocation.call``, and prints. What is asked and what is shown are
apart, so that a picture can be made of an answer from anywhere.
"""
