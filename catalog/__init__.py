"""What the web and the worker processes share: products, photos, jobs, tags and the queue's messages.

Knows nothing of HTTP, of networks or of devices, and imports nothing else of this project.
A request is followed through `products.accept`, `queue.send`, `claims.claim`, `jobs.finish`; what was lost on
the way is found again by `sweep.sweep`.
"""
