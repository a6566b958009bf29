"""The way to Redis: `aio.Link` for asyncio, `blocking.Link` for threads, with the same methods and meaning.
All knowledge of redis-py is in this folder; nothing else imports it."""
