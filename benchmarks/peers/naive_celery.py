"""The Celery worker that people write first: one task for each product, a model in each prefork child.

Broker and result backend come from the command line.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.peers.tagging import PeerTagger

LOADED_WITHIN_S = 300  # Celery ends a child that takes 4 s

app = Celery("naive_celery")
app.conf.worker_proc_alive_timeout = LOADED_WITHIN_S
loaded: dict[str, PeerTagger] = {}


@worker_process_init.connect
def load(**_: Any) -> None:
    loaded["tagger"] = PeerTagger.from_environment()


@app.task(name="tag")
def tag(product: dict[str, Any]) -> dict[str, Any]:
    began = time.time()
    tagger = loaded["tagger"]
    return {"began": began, "tags": tagger.predict([tagger.prepare(product)])[0]}
