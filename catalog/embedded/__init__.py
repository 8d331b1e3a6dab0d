"""The PostgreSQL and Redis of an installation that brings none: real servers from wheels, state under `var`.

`python -m catalog.embedded postgres|redis` runs one in the foreground; `postgres_url(var)` and `redis_url(var)`
say where it listens. Both listen on a unix socket only: no port to collide with, nothing for the network to reach.
"""

from catalog.embedded.places import postgres_url, redis_url

__all__ = ["postgres_url", "redis_url"]
