"""The asyncio form of the helper, and the source of the blocking one.
The blocking form is generated from this file by tools/unasync.py."""
