"""The front door of a team's models: keys, quotas, promises kept under load, a record; over HTTP, typed and raw."""
