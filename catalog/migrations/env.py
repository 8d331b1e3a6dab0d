"""Alembic's entry: runs the migrations on the connection that `database.migrate` made.

There is no alembic.ini and no offline mode: the schema is changed by `python -m catalog migrate` only.
"""

from alembic import context

from catalog.tables import Base

connection = context.config.attributes["connection"]
# Each migration is a transaction of its own: one that builds an index without blocking writes ends it anyway.
context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
