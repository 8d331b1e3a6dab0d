"""The processes that tag: a Celery worker that owns one device, and the beat that sends the sweep.

`app` builds the Celery application, `tasks` holds the life of one message, `batcher` fills the device,
`runtime` is the device. Nothing is connected, loaded or started by importing any of them, except that
importing `runtime` imports torch.
"""
