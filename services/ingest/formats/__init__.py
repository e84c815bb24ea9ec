"""Pure parsers: bytes of one message in, readings and named refusals out. No I/O here."""
