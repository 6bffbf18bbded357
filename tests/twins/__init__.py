"""Broken twins: mailmill with one guard taken out, to show that the tests see what the guard is for.

- ``guards``  the guards that can be taken out, and the tests that must fail then
- ``plugin``  a pytest plugin that takes one out before anything of mailmill is loaded

``tests/chaos/test_broken_twins.py`` runs them all. One by hand, from the repository's root::

    PYTHONPATH=tests BROKEN_TWIN=fence python -m pytest -n 0 -p twins.plugin tests/unit/test_queue.py

Laws: a guard is taken out at a seam of the program, never in the text of a statement. A twin fails by an assertion of
the tests that are named, in their own call: an error at import or in a fixture shows nothing.
"""
