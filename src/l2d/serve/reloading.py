"""Going over to what changed on the disk while requests are answered."""

from __future__ import annotations

import asyncio
import traceback

from fastapi import Request
from starlette.responses import Response

from l2d.serve.asking import as_json
from l2d.serve.gate import log
from l2d.serve.house import House, house_of, visit_of


async def reload(request: Request) -> Response:
    """Opens the runs anew in the background and goes over to them, without dropping a request."""
    house, visit = house_of(request), visit_of(request)
    reload_all(house)
    found = as_json({"runs": [arm.name for arm in house.arms], "request_id": visit.request_id})
    found.status_code = 202
    return found


def reload_all(house: House) -> None:
    """Begins to open the runs anew, unless that is being done."""
    if house.reloading is None or house.reloading.done():
        house.reloading = asyncio.get_running_loop().create_task(_reload(house))


async def _reload(house: House) -> None:
    for arm in house.arms:
        try:
            await arm.reload()
        except Exception as error:  # noqa: BLE001  # the former run goes on answering
            log(run=arm.name, failure="".join(traceback.format_exception(error)))
        else:
            log(run=arm.name, event="reloaded", memory_version=arm.version)


async def follow(house: House) -> None:
    """Goes over to what another process writes, as long as the server reads."""
    while True:
        await asyncio.sleep(house.settings.poll_seconds)
        for arm in house.arms:
            try:
                await arm.follow()
            except Exception as error:  # noqa: BLE001  # the writer may be in the middle of something: look again
                log(run=arm.name, failure="".join(traceback.format_exception(error)))
