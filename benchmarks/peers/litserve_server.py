"""LitServe with batching: `python -m benchmarks.peers.litserve_server PORT PROCESSES`.

It reads annotations as objects, so this module does not postpone them.
"""

import os
import sys
from typing import Any

import litserve

from benchmarks.peers.tagging import DEVICE, PeerTagger
from models import Example

MAX_BATCH = 32  # as many as ours
GATHER_S = 0.05  # what a product waits at most for others


class TaggerApi(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.tagger = PeerTagger.from_environment()

    def decode_request(self, request: dict[str, Any]) -> Example:
        return self.tagger.prepare(request)

    def predict(self, examples: list[Example]) -> list[list[dict[str, Any]]]:
        return self.tagger.predict(examples)

    def encode_response(self, tags: list[dict[str, Any]]) -> dict[str, Any]:
        return {"tags": tags}


def main(port: int, processes: int) -> None:
    server = litserve.LitServer(
        TaggerApi(max_batch_size=MAX_BATCH, batch_timeout=GATHER_S),
        accelerator=os.environ[DEVICE],
        devices=1,
        workers_per_device=processes,
        timeout=False,
    )
    server.run(
        host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
