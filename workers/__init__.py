"""The processes that tag: a Celery worker that owns one device, and the beat that sends the sweep.

`app` builds the Celery application, `tasks` holds the life of one message, `batcher` fills the device,
`runtime` is the device. Nothing is connected, loaded or started by importing any of them, except that
importing `runtime` imports torch.

    BatcherError         told to who submits to the batcher; its tree is in `batch_runner`
    OutOfMemory          a forward did not fit, and `batch_runner` halves the batch
    JobFault             a product cannot be prepared, and its job fails
    DeviceUnavailable    the device of the settings is not there, and the worker does not start
    Panic                a library in Rust gave up
"""
