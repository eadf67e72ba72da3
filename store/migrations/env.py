"""What Alembic runs for each command: our schema, over the connection that it is handed (see migrating.py)."""

from alembic import context

from store.schema import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table by making another
    compare_type=True,
    compare_server_default=True,
    transactional_ddl=True,  # SQLite's can be rolled back, too, as we begin its transactions ourselves
)
with context.begin_transaction():
    context.run_migrations()
