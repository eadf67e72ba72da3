"""What becomes of records with time: retention, erasure, backups."""
