"""The gate: has a request become slower, in units of what it takes without a server?"""
