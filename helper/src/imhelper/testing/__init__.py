"""For users' own tests: `FakeImHelper`, an in-memory twin of the asyncio helper.
Its blocking form is `imhelper.testing.sync.FakeImHelper`."""

from .._async.fake import FakeImHelper
from .._memory import Sent

__all__ = ["FakeImHelper", "Sent"]
