"""A worker with `celery-batches`: the same task, but the function gets what has gathered.

Runs under Celery 5.6: celery-batches does not take ours. As its documentation advises, the worker reserves more than a
batch for each child, or it would always wait for its timer.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from celery_batches import Batches

from benchmarks.peers.tagging import PeerTagger

LOADED_WITHIN_S = 300  # Celery ends a child that takes 4 s
MAX_BATCH = 32  # as many as ours
FLUSH_S = 0.05  # what a product waits at most for others

app = Celery("batches")
app.conf.worker_proc_alive_timeout = LOADED_WITHIN_S
app.conf.worker_prefetch_multiplier = 2 * MAX_BATCH
loaded: dict[str, PeerTagger] = {}


@worker_process_init.connect
def load(**_: Any) -> None:
    loaded["tagger"] = PeerTagger.from_environment()


@app.task(name="tag", base=Batches, flush_every=MAX_BATCH, flush_interval=FLUSH_S)
def tag(requests: list[Any]) -> None:
    began = time.time()
    tagger = loaded["tagger"]
    answers = tagger.predict([tagger.prepare(request.args[0]) for request in requests])
    for request, tags in zip(requests, answers, strict=True):
        app.backend.mark_as_done(request.id, {"began": began, "tags": tags}, request=request)
