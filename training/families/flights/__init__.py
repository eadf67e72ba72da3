"""Departures from New York in 2013: how likely a flight arrives more than 30 minutes late."""
