"""Celery: a task that sends, and is repeated until Redis has accepted the message, which then arrives once.
Run it: IM_REDIS_URL=redis://localhost celery -A celery_task worker"""

import os
from typing import Any

from celery import Celery

from imhelper import RedisUnavailableError
from imhelper.sync import ImHelper

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost/1"))

# Made before the workers fork; each of them connects by itself at its first send.
im = ImHelper(os.environ["IM_REDIS_URL"])


@app.task(bind=True, autoretry_for=(RedisUnavailableError,), retry_backoff=1, retry_backoff_max=30, max_retries=8)
def notify(task: Any, user: str, text: str) -> str:
    # A repeated task keeps its id. As the key it makes all tries one message, for 5 minutes.
    return im.send_message("shop", user, {"text": text}, idempotency_key=task.request.id)
