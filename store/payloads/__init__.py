"""Whole inputs, of a sample of the requests: kept beside the spool, and from there brought to a folder or to S3."""
