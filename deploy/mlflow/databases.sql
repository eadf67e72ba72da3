-- What the server keeps: runs and the registry, and apart from them the accounts.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_accounts;
