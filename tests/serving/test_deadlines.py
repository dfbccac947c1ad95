"""Many deadlines on one timer."""

from __future__ import annotations

import asyncio

from serving.deadlines import Deadlines


def test_each_expires_once_unless_it_is_moved_or_closed() -> None:
    async def scene() -> None:
        deadlines = Deadlines()
        expired: list[str] = []
        last = asyncio.Event()
        names = ("never set", "taken back", "closed", "moved", "passed")
        found = {name: deadlines.open(lambda name=name: expired.append(name)) for name in names}
        for name in names[1:]:
            found[name].within(0.01)
        found["taken back"].never()
        found["closed"].close()
        found["moved"].allow(60)
        deadlines.open(last.set).within(0.3)
        async with asyncio.timeout(20):
            await last.wait()
        assert expired == ["passed"]

    asyncio.run(scene())


def test_the_timer_starts_again_after_everybody_has_gone() -> None:
    async def scene() -> None:
        deadlines = Deadlines()
        for _ in range(2):
            passed = asyncio.Event()
            deadline = deadlines.open(passed.set)
            deadline.within(0)
            async with asyncio.timeout(20):
                await passed.wait()
            deadline.close()
            # Long enough for a tick without anybody, which stops the timer.
            gone = asyncio.Event()
            asyncio.get_running_loop().call_later(0.25, gone.set)
            await gone.wait()

    asyncio.run(scene())
