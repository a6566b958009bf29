"""The asyncio form of the helper, and the source of the blocking one.
Generated from _async/__init__.py by tools/unasync.py: change that file, not this one."""
