"""The services that people write first, beside ours: the same checkpoint, products, model views and cores.

    naive_celery      one Celery task for each product: decode and a forward of one, in prefork children
    celery_batches    Celery tasks that `celery-batches` hands to a function in batches
    litserve_server   LitServe with batching, asked over HTTP

The last two live in an environment of their own (`environment.py`), so nothing of them is among our dependencies.
Each is written as its own documentation shows it, with the settings its authors advise for throughput: a child for each
core with one torch thread, which on processors beats one child with all of them. They get the model views that our
intake made, and keep no durable row, so what they are spared is for them and not for us.
"""
