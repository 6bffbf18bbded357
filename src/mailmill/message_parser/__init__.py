"""Bytes → a parsed message. Pure, bounded, and it never raises on bad mail.

Laws of this room:

- Any bytes give a value; what was odd is said in ``ParsedMessage.defects``. Nothing is hidden from a reader because it
  is malformed: a multipart without its delimiters is text, an unknown encoding is kept as it came.
- Work is linear in the size of the message and bounded by ``Caps``. Nothing recurses, no pattern backtracks over a
  sender's text, no codec is looked up by a sender's name (only those of ``charsets``).
- No string given out holds a NUL or a lone surrogate; header values hold no control characters at all.

Files: ``values`` (what is given out, the caps) · ``charsets`` (labels → codecs, text of unknown charset) · ``fields``
(header block → fields; RFC 2047) · ``addresses`` · ``structured`` (dates, message ids, parameters) · ``mime`` (the walk
over the parts, transfer encodings) · ``parse`` (the two functions). Why an own walk and no library:
``docs/decisions/own-mime-walker.md``.
"""

from mailmill.message_parser.parse import parse_headers, parse_message
from mailmill.message_parser.values import DEFAULT_CAPS, Attachment, Caps, HeaderSummary, ParsedMessage

__all__ = ["DEFAULT_CAPS", "Attachment", "Caps", "HeaderSummary", "ParsedMessage", "parse_headers", "parse_message"]
