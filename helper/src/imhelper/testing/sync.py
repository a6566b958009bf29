"""For users' own tests: `FakeImHelper`, an in-memory twin of the blocking helper.
Its asyncio form is `imhelper.testing.FakeImHelper`."""

from .._memory import Sent
from .._sync.fake import FakeImHelper

__all__ = ["FakeImHelper", "Sent"]
