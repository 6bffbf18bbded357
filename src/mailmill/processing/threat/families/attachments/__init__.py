"""Family ``attachments``: programs, pages, macros, containers, messages within messages, and names that hide what a
file is."""

from __future__ import annotations

from mailmill.processing.threat.families.attachments import archives, calendars, documents, messages, pages, types

DETECTORS = (
    *types.DETECTORS,
    *pages.DETECTORS,
    *documents.DETECTORS,
    *archives.DETECTORS,
    *messages.DETECTORS,
    *calendars.DETECTORS,
)
